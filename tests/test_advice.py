"""The rules behind `explain`, on numbers that were recorded."""

import pytest

from arsrc.advice import CHECKSUM, NO_MAP, Facts, limits

ZERO = dict.fromkeys(
    ("records_read", "bytes_read", "records_decoded", "seconds_read", "seconds_in_codec", "seconds_waited"), 0
) | {"seconds_away": 0, "batches_served": 0}


def counts(batches, read, bytes_read, decoded, in_read, in_codec, waited, away):
    """Metrics as `io_metrics` names them."""
    values = (read, bytes_read, decoded, in_read, in_codec, waited, away, batches)
    return dict(zip(ZERO, values, strict=True))


FACTS = Facts(
    batch_bytes=200_704,
    batches_at_once=1,
    all_bytes=15_680_000,
    encodings=(),
    compressions=(),
    is_verifying=False,
    group_size=1,
    is_random=True,
    block_size=1,
    window_bytes=0,
    is_cached=False,
    codec="Bytes",
    is_python=False,
    num_processes=0,
    ahead="auto",
    cold=0.0,
    num_threads=2,
    num_cores=2,
    read_ahead_bytes=268_435_456,
    cache_bytes=4_294_967_296,
    metrics=ZERO,
)
GROUPED = FACTS._replace(compressions=("zstd",), group_size=256)
# 20,000 records of 784 bytes, batches of 256; 81 batches, but for the first.
QUICK_STEP = counts(82, 48_896, 38_334_464, 48_896, 0.070, 0.0003, 0.029, 0.071)
LONG_STEP = counts(82, 81_664, 64_024_576, 81_664, 0.295, 0.002, 0.007, 0.655)
GROUPS_AT_RANDOM = counts(81, 24_576, 19_267_584, 355_424, 1.328, 0.002, 0.511, 0.256)
GROUPS_IN_BLOCKS = counts(82, 68_192, 53_462_528, 68_992, 1.012, 0.001, 0.276, 0.687)
BLOCKS_OF_100 = counts(82, 69_600, 54_566_400, 202_592, 1.709, 0.030, 0.828, 0.351)
SINGLE_ZSTD = counts(82, 30_720, 24_084_480, 30_720, 0.883, 0.024, 1.034, 0.066)
CHECKED = counts(82, 65_280, 51_179_520, 65_280, 1.457, 0.001, 0.404, 0.490)
SLOW_FUNCTION = counts(82, 20_992, 16_457_728, 20_992, 26.472, 26.019, 12.471, 1.167)
ALL_CACHED = counts(100, 0, 0, 0, 0.02, 0.0, 0.04, 0.1)


def told(facts, *texts):
    """The texts of the limits, which begin with `texts` and are no more."""
    found = limits(facts)
    assert len(found) == len(texts)
    for limit, text in zip(found, texts, strict=True):
        assert limit.what.startswith(text)
        assert limit.helps
        assert not any(text.endswith(".") for text in limit.helps)
    return " | ".join(option for limit in found for option in limit.helps)


def test_before_anything_is_measured_only_what_the_options_say_is_told():
    assert not limits(FACTS)
    assert not limits(GROUPED._replace(is_random=False))
    assert "shuffle_block_size=256" in told(
        GROUPED, "groups of 256 are read at random: each record costs its whole group"
    )
    blocks = GROUPED._replace(is_random=False, block_size=256, window_bytes=6_422_528)
    assert not limits(blocks)
    assert "shuffle_block_size=512" in told(blocks._replace(block_size=300), "blocks of 300 cut groups of 256")


def test_few_batches_say_little():
    few = GROUPS_AT_RANDOM | {"batches_served": 19}
    told(GROUPED._replace(metrics=few), "groups of 256 are read at random: each record costs its whole group")
    assert not limits(FACTS._replace(metrics=SINGLE_ZSTD | {"batches_served": 19}))


def test_a_program_that_seldom_waits_is_not_limited():
    assert not limits(FACTS._replace(metrics=LONG_STEP))
    assert not limits(FACTS._replace(metrics=LONG_STEP, encodings=("zstd",), is_python=True))


@pytest.mark.parametrize("metrics", [QUICK_STEP, ALL_CACHED])
def test_a_program_that_does_little_but_ask_is_told_so(metrics):
    helps = told(FACTS._replace(metrics=metrics), "batches come from memory, one in ")
    assert "batches_per_fetch=16" in helps
    assert "load_resident" in helps


def test_batches_that_are_asked_for_together_count_together():
    together = FACTS._replace(batch_bytes=20_000_000, batches_at_once=16)
    assert "read_ahead_bytes=1280000000" in told(together, "16 batches at a time, 320 MB, are too large to be read")
    helps = told(FACTS._replace(metrics=QUICK_STEP, batches_at_once=16), "batches come from memory, one in ")
    assert "batches_per_fetch" not in helps


def test_groups_that_are_decoded_again_and_again_come_first():
    helps = told(
        GROUPED._replace(metrics=GROUPS_AT_RANDOM),
        "groups of 256 are read at random: each record costs its whole group (so far 14.5 records for each one read)",
        "reading takes 54 us a record (14.5 MB a second), decoded from zstd",
    )
    assert helps.startswith("set shuffle_block_size=256, ")
    told(
        GROUPED._replace(is_random=False, block_size=100, metrics=BLOCKS_OF_100),
        "blocks of 100 cut groups of 256, which are decoded again for each block (so far 2.91 records",
        "reading takes 24.1 us a record",
    )


def test_windows_that_are_not_kept_are_told_with_the_bytes_that_they_need():
    facts = GROUPED._replace(is_random=False, block_size=256, window_bytes=200_000_000)
    helps = told(facts, "windows of 200 MB are not kept: groups are decoded for each batch")
    assert "read_ahead_bytes=800000000" in helps
    assert "shuffle_window_blocks" in helps


def test_groups_that_are_decoded_once_are_no_limit_but_their_decoding_may_be():
    facts = GROUPED._replace(is_random=False, block_size=256, window_bytes=6_422_528, metrics=GROUPS_IN_BLOCKS)
    helps = told(facts, "reading takes 14.8 us a record (52.9 MB a second), decoded from zstd")
    assert "set cacheable=True, which keeps decoded records (15.7 MB) in memory" in helps
    assert "which does not compress" in helps
    assert "num_threads" not in helps


def test_more_threads_are_advised_where_there_are_cores_for_them():
    facts = FACTS._replace(encodings=("brotli",), metrics=SINGLE_ZSTD, num_cores=16)
    helps = told(facts, "reading takes 28 us a record (28 MB a second), by array_record's reader (brotli)")
    assert "num_threads=16" in helps
    facts = facts._replace(encodings=(), compressions=("zstd", "brotli"))
    assert "num_threads=16" in told(
        facts, "reading takes 28 us a record (28 MB a second), decoded from zstd and brotli"
    )
    assert "num_threads=8" in told(
        facts._replace(cold=0.8), "reading takes 28 us a record (28 MB a second), as the disk"
    )


def test_checks_of_hashes_are_told_as_what_they_are():
    facts = FACTS._replace(encodings=(CHECKSUM,), metrics=CHECKED)
    assert told(facts, "reading takes 22.3 us a record") == 'set ReadOptions(checksum="auto")'


def test_hashes_that_are_checked_once_are_told_until_all_are():
    facts = FACTS._replace(is_verifying=True, metrics=CHECKED, compressions=("zstd",))
    assert told(facts, "reading takes 22.3 us a record").startswith("wait for later epochs")


def test_files_that_are_as_they_should_be_are_not_to_be_written_again():
    facts = FACTS._replace(encodings=(NO_MAP,), metrics=SINGLE_ZSTD, num_cores=16)
    helps = told(facts, "reading takes 28 us a record (28 MB a second), by array_record's reader (cannot be mapped")
    assert "write" not in helps
    assert "cacheable=True" in helps
    assert "num_threads=16" in helps
    assert "does not compress" in told(facts._replace(encodings=(NO_MAP, "zstd")), "reading takes 28 us a record")


def test_a_slow_function_is_told_by_its_time_a_record():
    facts = FACTS._replace(codec="Map", is_python=True, metrics=SLOW_FUNCTION, num_cores=16)
    helps = told(facts, "the codec Map takes 1.24 ms a record, in Python, which runs on one core at a time")
    assert "set cacheable=True, which keeps decoded records (15.7 MB) in memory" in helps
    assert "num_processes=16" in helps
    in_files = told(facts._replace(cache_bytes=10**6), "the codec Map")
    assert "(15.7 MB) in files, with ReadOptions(cache_dir=...)" in in_files
    assert "later epochs" in told(facts._replace(is_cached=True), "the codec Map")
    in_processes = facts._replace(num_processes=2)
    assert "num_processes=16" in told(in_processes, "the codec Map takes 1.24 ms a record, in 2 worker processes")
    assert "num_processes" not in told(facts._replace(num_processes=16), "the codec Map")
    quick = facts._replace(metrics=SLOW_FUNCTION | {"records_read": 100 * SLOW_FUNCTION["records_read"]})
    assert "num_processes" not in told(quick, "the codec Map takes 12.4 us a record, in Python")
    numpy = facts._replace(codec="Own", is_python=False)
    assert "num_threads=16" in told(numpy, "the codec Own takes 1.24 ms a record")


def test_a_disk_that_is_waited_for_is_told_as_what_it_is():
    cold = counts(82, 20_992, 16_457_728, 20_992, 2.2, 0.001, 1.1, 0.1)
    helps = told(
        FACTS._replace(metrics=cold, cold=0.8), "reading takes 105 us a record (7.48 MB a second), as the disk"
    )
    assert "num_threads=8" in helps
    assert "shuffle_block_size=256, so that neighbours" in helps
    assert "neighbours" not in told(FACTS._replace(metrics=cold, cold=0.8, is_random=False), "reading takes")


def test_what_keeps_batches_from_being_read_ahead_is_told():
    large = FACTS._replace(batch_bytes=150_000_000)
    assert "read_ahead_bytes=600000000" in told(large, "batches of 150 MB are too large to be read ahead")
    assert not limits(large._replace(ahead="never"))
    told(
        FACTS._replace(ahead="never", encodings=("zstd",), metrics=SINGLE_ZSTD),
        "nothing is read ahead",
        "reading takes 28 us a record",
    )


def test_blocks_are_advised_with_the_memory_that_their_windows_need():
    facts = GROUPED._replace(metrics=GROUPS_AT_RANDOM, window_bytes=6_422_528, read_ahead_bytes=3_000_000)
    found = limits(facts)[0]
    assert found.helps[0].startswith("set shuffle_block_size=256 and ReadOptions(read_ahead_bytes=25690112), ")
    without = limits(facts._replace(ahead="never", read_ahead_bytes=0))
    assert ("set ReadOptions(read_ahead_bytes=25690112)",) in [limit.helps for limit in without]
    never = limits(facts._replace(ahead="never"))
    assert ('set ReadOptions(ahead="auto")',) in [limit.helps for limit in never]

"""Where functions run that hold the interpreter lock: in processes of their own."""

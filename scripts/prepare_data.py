"""Check, resample and split a corpus: the same as the command wavenet-prepare."""

from wavenet.prepare import main

if __name__ == "__main__":
    raise SystemExit(main())

"""`python -m icdm COMMAND ...` is `icdm COMMAND ...`."""

from icdm.cli import main

if __name__ == "__main__":
    main()

"""`opengnsadmin` from a checkout, without installing anything: python opengnsadmin.py --help."""

from compass.admin.main import main

if __name__ == "__main__":
    main()

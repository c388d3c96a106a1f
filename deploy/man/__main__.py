"""`python -m deploy.man`: write man/backupmx.1 from the commands themselves."""

from deploy.man.page import PAGE, text

if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text(), "utf-8")

FROM base
ADD --chown=app:mail archive.tar /x/
ADD --unpack=false archive.tar /kept/
ADD --unpack=true archive.tar.gz /unpacked/

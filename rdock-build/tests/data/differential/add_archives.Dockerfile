FROM scratch
ADD archive.tar.gz /gz/
ADD archive.tar /tar
ADD archive.tar archive.tar.gz /both/
ADD text.gz /text/
ADD a.txt archive.tar.gz /mixed/
COPY archive.tar.gz /kept/

FROM scratch
COPY a.txt no*thing /x/

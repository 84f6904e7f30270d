FROM scratch
COPY a.txt /a.txt
COPY b.txt run.sh setuid /dir/
COPY ["c d.txt", "/a file with blanks"]

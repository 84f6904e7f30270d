FROM scratch
COPY a.txt /x
COPY . /all/

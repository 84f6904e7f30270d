FROM scratch
COPY ../a.txt ../../dir/../b.txt /x/

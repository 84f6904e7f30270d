FROM scratch
ENV a=b c="d e" f='g h' i=j\ k
ENV old the rest  of the line
LABEL a=b "c d"=e
LABEL old value here
ENV empty= last=""
ENV eq=a=b

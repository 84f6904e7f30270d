FROM scratch
COPY *.txt /texts/
COPY dir/*.m? /md/
COPY [ab].txt [^a-q]un.sh /classes/
COPY d*/s*b /nested/
COPY dir/* /all/

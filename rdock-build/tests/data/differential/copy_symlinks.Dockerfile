FROM scratch
COPY link.txt /followed.txt
COPY dirlink /followed/
COPY chain /chain
COPY absolute /absolute
COPY dir /kept/

FROM base
RUN mkdir -p /x/a.txt
COPY a.txt /x/

FROM scratch
COPY . /all/
COPY dir /dir/
COPY logs/* /logs/

FROM base
WORKDIR a
WORKDIR b/../c
RUN pwd > here
USER app
WORKDIR /home/app/new/deep
RUN pwd > where && id -u >> where
COPY a.txt .
WORKDIR /
WORKDIR ${none:-relative}/$FROM_BASE

FROM scratch
VOLUME $none

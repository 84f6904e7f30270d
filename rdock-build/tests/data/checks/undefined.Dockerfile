FROM scratch
ARG declared
ENV PATHS=/x
WORKDIR /$PATH/$declared/$PATSH/$UNKNOWN
FROM image
ENV a=$UNKNOWN

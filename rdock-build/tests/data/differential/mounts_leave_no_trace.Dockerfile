FROM base
RUN ls /etc > /etc-seen && echo x > /run.txt
RUN echo changed > /etc/resolv.conf || true
RUN echo 1.2.3.4 x >> /etc/hosts || true
RUN mkdir -p /run/secrets /dev/shm/x && echo own > /run/own

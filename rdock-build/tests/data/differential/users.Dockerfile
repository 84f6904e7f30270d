FROM base
RUN id -u > /id && echo $HOME >> /id
USER app
RUN id -u > /tmp/app && id -g >> /tmp/app && id -G >> /tmp/app && echo $HOME >> /tmp/app
USER daemon:mail
RUN id -u > /tmp/daemon && id -g >> /tmp/daemon && echo $HOME >> /tmp/daemon
USER 1000:8
RUN id -u > /tmp/number && id -g >> /tmp/number && echo $HOME >> /tmp/number
USER 4321
RUN id -u > /tmp/unknown && id -g >> /tmp/unknown && echo $HOME >> /tmp/unknown
ENV HOME=/srv
RUN echo $HOME > /tmp/set

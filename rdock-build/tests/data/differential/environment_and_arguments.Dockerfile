FROM base
ARG first=argument
ENV first=environment
RUN echo $first > /one
ENV second=environment
ARG second=argument
RUN echo $second > /two
ENV third=$first,$second
ARG given=default
RUN echo $given > /given
ARG bare
RUN echo "${bare-unset}" > /bare

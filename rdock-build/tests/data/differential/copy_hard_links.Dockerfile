FROM base
COPY hard /hard/
RUN echo more >> /hard/1

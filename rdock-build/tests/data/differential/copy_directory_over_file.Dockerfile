FROM base
RUN echo file > /x
COPY dir /x

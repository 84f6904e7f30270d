FROM base
WORKDIR /a//b/

FROM scratch AS Base
FROM scratch as two
FROM scratch AS two
FROM scratch AS context

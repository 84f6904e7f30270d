ARG base
FROM $bsae

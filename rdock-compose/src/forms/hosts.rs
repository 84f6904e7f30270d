//! Lines of `extra_hosts`: `name=address`, `name:address`, brackets around addresses allowed.

/// The name and its addresses.
pub(crate) fn parse_host(text: &str) -> Result<(String, Vec<String>), String> {
    let (name, addresses) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or_else(|| format!("{text:?} is not name=address"))?;
    let addresses = split_addresses(addresses);
    if name.is_empty() || addresses.is_empty() {
        return Err(format!("{text:?} is not name=address"));
    }
    Ok((name.to_owned(), addresses))
}

/// Addresses with commas between them.
pub(crate) fn split_addresses(text: &str) -> Vec<String> {
    text.split(',')
        .map(|address| {
            let inner = address.trim();
            let inner = inner
                .strip_prefix('[')
                .and_then(|inner| inner.strip_suffix(']'))
                .unwrap_or(inner);
            inner.to_owned()
        })
        .filter(|address| !address.is_empty())
        .collect()
}

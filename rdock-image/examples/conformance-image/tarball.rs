//! Writes tars from operation lists, byte for byte as a hostile tool could.
use serde_json::Value;

/// Bytes of the entries, without an end mark. `host` replaces `{HOST}`.
pub(crate) fn entries(ops: &Value, host: &str) -> Result<Vec<u8>, String> {
    let mut tar = Vec::new();
    for op in ops.as_array().ok_or("the operations are not a list")? {
        entry(&mut tar, op, host)?;
    }
    Ok(tar)
}

/// A whole tar.
pub(crate) fn whole(ops: &Value, host: &str) -> Result<Vec<u8>, String> {
    let mut tar = entries(ops, host)?;
    tar.extend([0; 1024]);
    Ok(tar)
}

fn entry(tar: &mut Vec<u8>, op: &Value, host: &str) -> Result<(), String> {
    let text = |name: &str| op[name].as_str().map(|text| text.replace("{HOST}", host));
    let kind = text("op").unwrap_or_default();
    if kind == "raw_pax" {
        push(
            tar,
            b"pax",
            b'x',
            text("text").unwrap_or_default().as_bytes(),
            &Fields::default(),
        );
        return Ok(());
    }
    if kind == "raw_header" {
        let flag = text("typeflag")
            .and_then(|flag| flag.bytes().next())
            .unwrap_or(b'0');
        let mut fields = Fields {
            size: op["size"].as_u64(),
            ..Fields::default()
        };
        fields.real_size = op["gnu_realsize"].as_u64();
        header(
            tar,
            text("path").unwrap_or_else(|| "raw".to_owned()).as_bytes(),
            flag,
            0,
            &fields,
        );
        return Ok(());
    }
    let name = match op["path_hex"].as_str() {
        Some(text) => hex(text)?,
        None => text("path").unwrap_or_default().into_bytes(),
    };
    let content = match (&op["fill"], op["hex"].as_str(), text("text")) {
        (Value::Array(fill), ..) => {
            vec![fill[0].as_u64().unwrap_or(0) as u8; fill[1].as_u64().unwrap_or(0) as usize]
        }
        (_, Some(text), _) => hex(text)?,
        (_, None, text) => text.unwrap_or_default().into_bytes(),
    };
    let mut fields = Fields {
        mode: op["mode"]
            .as_str()
            .and_then(|mode| u32::from_str_radix(mode, 8).ok()),
        uid: op["uid"].as_u64().unwrap_or(0),
        link: text("target").unwrap_or_default().into_bytes(),
        device: (
            op["major"].as_u64().unwrap_or(0),
            op["minor"].as_u64().unwrap_or(0),
        ),
        size: op["ustar_size"].as_u64(),
        real_size: op["gnu_realsize"].as_u64(),
    };
    let mut pax = Vec::new();
    if let Some(records) = op["pax"].as_object() {
        for (key, value) in records {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            record(&mut pax, key.as_bytes(), value.as_bytes());
        }
    }
    if let Some(records) = op["xattrs"].as_object() {
        for (key, value) in records {
            let key = format!("SCHILY.xattr.{key}");
            record(
                &mut pax,
                key.as_bytes(),
                value.as_str().unwrap_or_default().as_bytes(),
            );
        }
    }
    if name.len() > 100 {
        record(&mut pax, b"path", &name);
    }
    if fields.link.len() > 100 {
        record(&mut pax, b"linkpath", &fields.link.clone());
    }
    if !pax.is_empty() {
        push(tar, b"pax", b'x', &pax, &Fields::default());
    }
    let (flag, content) = match kind.as_str() {
        "dir" => {
            fields.mode.get_or_insert(0o755);
            (b'5', Vec::new())
        }
        "file" => (b'0', content),
        "hardlink" => (b'1', Vec::new()),
        "symlink" => (b'2', Vec::new()),
        "char" => (b'3', Vec::new()),
        other => return Err(format!("unknown operation {other}")),
    };
    push(tar, &name, flag, &content, &fields);
    Ok(())
}

#[derive(Default)]
struct Fields {
    mode: Option<u32>,
    uid: u64,
    link: Vec<u8>,
    device: (u64, u64),
    size: Option<u64>,
    real_size: Option<u64>,
}

fn push(tar: &mut Vec<u8>, name: &[u8], flag: u8, content: &[u8], fields: &Fields) {
    header(tar, name, flag, content.len(), fields);
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

fn header(tar: &mut Vec<u8>, name: &[u8], flag: u8, size: usize, fields: &Fields) {
    let mut block = [0_u8; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name[..name.len().min(100)]);
    put(100, format!("{:07o}\0", fields.mode.unwrap_or(0o644)).as_bytes());
    put(108, format!("{:07o}\0", fields.uid).as_bytes());
    put(116, b"0000000\0");
    put(124, &number(fields.size.unwrap_or(size as u64)));
    put(136, b"00000000000\0");
    put(156, &[flag]);
    put(157, &fields.link[..fields.link.len().min(100)]);
    put(
        257,
        if fields.real_size.is_some() {
            b"ustar  \0"
        } else {
            b"ustar\x0000"
        },
    );
    if flag == b'3' {
        put(329, format!("{:07o}\0", fields.device.0).as_bytes());
        put(337, format!("{:07o}\0", fields.device.1).as_bytes());
    }
    if let Some(size) = fields.real_size {
        put(483, &number(size));
    }
    put(148, b"        ");
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend_from_slice(&block);
}

/// Octal where it fits, else GNU's base-256.
fn number(value: u64) -> [u8; 12] {
    let mut field = [0; 12];
    if value < 1 << 33 {
        field.copy_from_slice(format!("{value:011o}\0").as_bytes());
    } else {
        field[0] = 0x80;
        field[4..].copy_from_slice(&value.to_be_bytes());
    }
    field
}

fn record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    pax.extend(format!("{length} ").bytes());
    pax.extend_from_slice(key);
    pax.push(b'=');
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

pub(crate) fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits = |at: usize| {
        text.get(at..at + 2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
    };
    (0..text.len())
        .step_by(2)
        .map(|at| digits(at).ok_or_else(|| format!("{text} is not hexadecimal")))
        .collect()
}

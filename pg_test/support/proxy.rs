//! A proxy before a real server, which lets happen to answers what networks and servers do to them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What becomes of an object that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// 503, and the server is not asked.
    Refuse,
    /// The connection is cut behind so many bytes of the answer.
    Cut(usize),
    /// Nothing more comes behind so many bytes.
    Stall(usize),
    /// The answer tells a content length that is so much longer, or shorter, than the body.
    Lie(i64),
    /// Each 16 kB take so long.
    Slow(Duration),
    /// The store refuses with a status and its word for it, and is not asked.
    Deny(u16, &'static str),
}

struct State {
    trouble: Mutex<Option<(Trouble, usize)>>,
    /// What becomes of what is written, behind so many requests.
    writing: Mutex<Option<(Trouble, usize)>>,
    stop: AtomicBool,
    let_go: AtomicBool,
    /// Objects that were asked for.
    asked: AtomicUsize,
    /// Requests that were refused.
    refused: AtomicUsize,
    /// Bytes of answers' bodies that were sent.
    sent: AtomicUsize,
}

/// A proxy on a port of its own. It ends when this is dropped.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

impl Proxy {
    pub fn start(to: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            trouble: Mutex::new(None),
            writing: Mutex::new(None),
            stop: AtomicBool::new(false),
            let_go: AtomicBool::new(false),
            asked: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                if shared.stop.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), state) = (client, Arc::clone(&shared)) else { continue };
                thread::spawn(move || {
                    // Whoever leaves in the middle is no failure of the proxy.
                    let _ = relay(client, to, &state);
                });
            }
        });
        Proxy { port, state }
    }

    pub fn host(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Has it happen to the next so many objects that are asked for.
    pub fn trouble(&self, trouble: Trouble, times: usize) {
        *self.state.trouble.lock().unwrap() = Some((trouble, times));
    }

    /// Has it happen to all that is written once so many requests have passed; None for no more.
    pub fn trouble_writing(&self, trouble: Option<Trouble>, behind: usize) {
        *self.state.writing.lock().unwrap() = trouble.map(|trouble| (trouble, behind));
    }

    /// Cuts what is stalled.
    pub fn let_go(&self) {
        self.state.let_go.store(true, Ordering::Relaxed);
    }

    pub fn asked(&self) -> usize {
        self.state.asked.load(Ordering::Relaxed)
    }

    pub fn refused(&self) -> usize {
        self.state.refused.load(Ordering::Relaxed)
    }

    pub fn sent(&self) -> usize {
        self.state.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Reads to the end of a head, and what came behind it.
fn head(stream: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        match stream.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

fn relay(mut client: TcpStream, to: u16, state: &State) -> std::io::Result<()> {
    let (request, body) = head(&mut client)?;
    let trouble = if request.starts_with("GET ") && !request.contains("list-type=") {
        state.asked.fetch_add(1, Ordering::Relaxed);
        let mut next = state.trouble.lock().unwrap();
        match &mut *next {
            Some((trouble, times)) if *times > 0 => {
                *times -= 1;
                Some(*trouble)
            }
            _ => None,
        }
    } else if request.starts_with("PUT ") || request.starts_with("POST ") {
        match &mut *state.writing.lock().unwrap() {
            Some((trouble, 0)) => Some(*trouble),
            Some((_, behind)) => {
                *behind -= 1;
                None
            }
            None => None,
        }
    } else {
        None
    };
    let length = request.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|(_, length)| length.trim().parse::<u64>().ok()).unwrap_or_default();
    let rest = length.saturating_sub(body.len() as u64);
    let refusal = match trouble {
        Some(Trouble::Deny(status, code)) => {
            let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>");
            Some(format!("HTTP/1.1 {status} No\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()))
        }
        Some(Trouble::Refuse) => Some("HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()),
        _ => None,
    };
    if let Some(refusal) = refusal {
        state.refused.fetch_add(1, Ordering::Relaxed);
        client.write_all(refusal.as_bytes())?;
        // It comes while the body is still being sent; what lay unread when the connection is closed would take it along.
        return std::io::copy(&mut (&client).take(rest), &mut std::io::sink()).map(drop);
    }
    let mut server = TcpStream::connect(("127.0.0.1", to))?;
    // No signature is of this header.
    let request = request.trim_end().lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let request = request.collect::<Vec<_>>().join("\r\n") + "\r\nConnection: close\r\n\r\n";
    server.write_all(request.as_bytes())?;
    server.write_all(&body)?;
    if let Some(Trouble::Cut(bytes)) = trouble.filter(|_| length > 0) {
        std::io::copy(&mut (&client).take(bytes as u64), &mut server)?;
        return client.shutdown(Shutdown::Both);
    }
    std::io::copy(&mut (&client).take(rest), &mut server)?;
    let (mut answer, mut rest) = head(&mut server)?;
    if let Some(Trouble::Lie(more)) = trouble {
        let lines = answer.trim_end().lines().map(|line| match line.split_once(':') {
            Some((name, length)) if name.eq_ignore_ascii_case("content-length") => {
                format!("Content-Length: {}", length.trim().parse::<i64>().unwrap_or_default() + more)
            }
            _ => line.to_owned(),
        });
        answer = lines.collect::<Vec<_>>().join("\r\n") + "\r\n\r\n";
    }
    client.write_all(answer.as_bytes())?;
    let mut sent = 0;
    let mut buffer = [0; 16 * 1024];
    loop {
        if rest.is_empty() {
            match server.read(&mut buffer)? {
                0 => return Ok(()),
                count => rest.extend_from_slice(&buffer[..count]),
            }
        }
        let some = std::mem::take(&mut rest);
        match trouble {
            Some(Trouble::Cut(most)) if sent + some.len() > most => {
                client.write_all(&some[..most.saturating_sub(sent)])?;
                return client.shutdown(Shutdown::Both);
            }
            Some(Trouble::Stall(most)) if sent + some.len() > most => {
                client.write_all(&some[..most.saturating_sub(sent)])?;
                // Until the client leaves or it is let go, at most half a minute.
                client.set_read_timeout(Some(Duration::from_millis(50)))?;
                for _ in 0..600 {
                    if state.let_go.load(Ordering::Relaxed) || matches!(client.read(&mut buffer), Ok(0)) {
                        break;
                    }
                }
                return client.shutdown(Shutdown::Both);
            }
            Some(Trouble::Slow(pause)) => thread::sleep(pause),
            _ => {}
        }
        client.write_all(&some)?;
        sent += some.len();
        state.sent.fetch_add(some.len(), Ordering::Relaxed);
    }
}

/// A proxy that clients ask to connect them (CONNECT).
pub struct Tunnel {
    port: u16,
    stop: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    pub fn start() -> Tunnel {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tunnel = Tunnel { port: listener.local_addr().unwrap().port(), stop: Arc::default(), asked: Arc::default() };
        let (stop, asked) = (Arc::clone(&tunnel.stop), Arc::clone(&tunnel.asked));
        thread::spawn(move || {
            for client in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), asked) = (client, Arc::clone(&asked)) else { continue };
                thread::spawn(move || {
                    let _ = connect(client, &asked);
                });
            }
        });
        tunnel
    }

    pub fn url(&self) -> String {
        format!("http://user:PASSWORD@127.0.0.1:{}", self.port)
    }

    /// What it was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn connect(mut client: TcpStream, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let (head, rest) = head(&mut client)?;
    asked.lock().unwrap().push(head.clone());
    let target = head.split(' ').nth(1).unwrap_or_default();
    let mut server = TcpStream::connect(target)?;
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    server.write_all(&rest)?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let copied = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(Shutdown::Both);
    copied.map(drop)
}

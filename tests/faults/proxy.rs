//! A TCP proxy in front of Redis that corrupts replies.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

use fastrand::Rng;

/// What the proxy does to replies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Clean,
    ByteByByte,
    /// Inserts random bytes at times.
    Garbage,
    /// Replaces a reply to HGETALL by one of 512 MB, of which it sends as much as the client reads.
    HalfGigabyte,
}

struct Shared {
    redis: u16,
    mode: Mutex<Mode>,
    random: Mutex<Rng>,
    corrupted: AtomicUsize,
    sent: AtomicU64,
}

/// A proxy; its threads end with their connections.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    pub fn start(redis: u16, seed: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let shared = Arc::new(Shared {
            redis,
            mode: Mutex::new(Mode::Clean),
            random: Mutex::new(Rng::with_seed(seed)),
            corrupted: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, serving.redis)) {
                    serving.connect(client, server);
                }
            }
        });
        Self { port, shared }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    /// Number of corrupted replies.
    pub fn corrupted(&self) -> usize {
        self.shared.corrupted.load(SeqCst)
    }

    /// Bytes of announced replies that the client has read.
    pub fn bytes_read(&self) -> u64 {
        self.shared.sent.load(SeqCst)
    }
}

impl Shared {
    fn connect(self: &Arc<Self>, client: TcpStream, server: TcpStream) {
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { return };
        let is_hgetall_sent = Arc::new(Mutex::new(false));
        let (this, noting) = (Arc::clone(self), Arc::clone(&is_hgetall_sent));
        thread::spawn(move || {
            pump(&client, &server, |bytes, mut server| {
                *noting.lock().unwrap() |= bytes.windows(7).any(|word| word == b"HGETALL");
                server.write_all(bytes)
            });
        });
        thread::spawn(move || {
            pump(&server_too, &client_too, |bytes, to| this.reply(bytes, to, *is_hgetall_sent.lock().unwrap()))
        });
    }

    fn reply(&self, bytes: &[u8], mut to: &TcpStream, is_hgetall_sent: bool) -> std::io::Result<()> {
        let mode = *self.mode.lock().unwrap();
        match mode {
            Mode::ByteByByte => bytes.chunks(1).try_for_each(|byte| to.write_all(byte)),
            Mode::Garbage if self.random.lock().unwrap().bool() => {
                self.corrupted.fetch_add(1, SeqCst);
                let (before, noise, after) = {
                    let mut random = self.random.lock().unwrap();
                    let (before, after) = bytes.split_at(random.usize(..=bytes.len()));
                    let length = random.usize(1..=64);
                    let noise: Vec<_> = (0..length).map(|_| random.u8(..)).collect();
                    (before, noise, after)
                };
                to.write_all(&[before, &noise, after].concat())
            }
            Mode::HalfGigabyte if is_hgetall_sent => {
                const BYTES: u64 = 512 << 20;
                self.corrupted.fetch_add(1, SeqCst);
                to.write_all(format!("%1\r\n$2\r\n.*\r\n${BYTES}\r\n").as_bytes())?;
                let piece = [b'x'; 1 << 16];
                let mut left = BYTES;
                while left > 0 {
                    to.write_all(&piece)?;
                    left -= piece.len() as u64;
                    self.sent.fetch_add(piece.len() as u64, SeqCst);
                }
                Ok(())
            }
            Mode::Clean | Mode::Garbage | Mode::HalfGigabyte => to.write_all(bytes),
        }
    }
}

/// Forwards bytes until either side ends.
fn pump(mut from: &TcpStream, to: &TcpStream, forward: impl Fn(&[u8], &TcpStream) -> std::io::Result<()>) {
    let mut bytes = [0; 1 << 14];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if forward(&bytes[..read], to).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

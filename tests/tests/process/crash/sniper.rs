//! One send, and a kill at the first byte of its answer: nothing can be nearer behind the commit.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use e2e::process::Broker;
use serde_json::Value;

use super::history::{History, Message};
use super::load::{NAMESPACE, body};

/// The sniper's number as a producer.
const PRODUCER: u32 = 1_000;

/// Sends message `number` and kills the broker when the answer begins; writes down what the answer was.
///
/// An HTTP client would be too slow: it is done with an answer when a commit that came late is made too.
pub(super) fn shoot(broker: &Broker, number: u32, history: &History) {
    let (message, killer) = ((PRODUCER, number), broker.killer());
    let mut connection = TcpStream::connect(broker.address()).unwrap();
    connection.set_nodelay(true).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let request = request(broker.address(), message);
    history.attempted(&[message]);
    connection.write_all(request.as_bytes()).unwrap();
    // The answer is small, so that it comes whole.
    let mut answer = vec![0; 16 << 10];
    let read = connection.read(&mut answer);
    killer.kill();
    let text = String::from_utf8(answer[..read.unwrap()].to_vec()).unwrap();
    let (head, json) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer but {text:?}"));
    assert!(head.starts_with("HTTP/1.1 200"), "{text}");
    let envelope: Value = serde_json::from_str(json).unwrap();
    history.stored(&[message], vec![envelope["result"]["ids"][0].as_str().unwrap().to_owned()]);
}

fn request(address: SocketAddr, message: Message) -> String {
    let body = serde_json::json!({ "body": body(message) }).to_string();
    let length = body.len();
    format!(
        "POST /client/v4/accounts/{NAMESPACE}/queues/orders/messages HTTP/1.1\r\nhost: {address}\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

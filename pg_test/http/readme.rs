//! The commands of README.md, run as they stand there.

use crate::support::cluster::server_directory;
use crate::support::front;
use crate::support::gateways::gateway;
use crate::support::source::Nginx;
use crate::support::trial::test;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The commands of a chapter, all its shell blocks one after another.
fn commands(chapter: &str) -> String {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, rest) = readme.split_once(&format!("\n## {chapter}\n")).expect("the chapter is there");
    let chapter = rest.split("\n## ").next().unwrap();
    chapter.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap()).collect()
}

test!("the commands of README.md on HTTP give what stands below them", over_http);
fn over_http() {
    let cluster = front::cluster();
    let database = cluster.database();
    let (mut client, _directory) = front::prepare(&database);
    let gateway = gateway(&cluster, &database);
    // What the demo's web server has: the examples that lie in the repository as one file, and its own dump of Patient.
    let root = server_directory();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data");
    let mut files: Vec<_> = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "gz"));
    files.sort();
    // Members of gzip one after another are a gzip file.
    let examples = root.path().join("all.ndjson.gz");
    fs::write(&examples, files.iter().flat_map(|path| fs::read(path).unwrap()).collect::<Vec<u8>>()).unwrap();
    client.batch_execute("create schema demo; set search_path = demo").unwrap();
    client.query_one("select bulk.load($1, fhir => true)", &[&examples.to_str().unwrap()]).unwrap();
    let lines: Vec<String> =
        client.query("select bulk.dump('Patient', fhir => true)", &[]).unwrap().iter().map(|row| row.get::<_, String>(0) + "\n").collect();
    fs::create_dir(root.path().join("dump")).unwrap();
    fs::write(root.path().join("dump/Patient.ndjson"), lines.concat()).unwrap();
    let web = Nginx::start(root.path(), "");
    let script = commands("Over HTTP");
    let work = tempfile::tempdir().unwrap();
    let output = Command::new("timeout")
        .args(["100", "bash", "-euo", "pipefail", "-c", &script])
        .env("BULK", format!("http://127.0.0.1:{}", gateway.port))
        .env("SOURCE", web.url("").trim_end_matches('/'))
        .current_dir(work.path())
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    let expected: Vec<&str> = script.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
    assert!(expected.len() >= 6, "{expected:?}");
    // One after another.
    let mut rest = shown.as_str();
    for line in expected {
        let line = line.trim_end_matches('…');
        let at = rest.find(line).unwrap_or_else(|| panic!("{line} is not in\n{rest}"));
        rest = &rest[at + line.len()..];
    }
    for file in ["patients.ndjson", "patients.ndjson.gz", "patients.csv"] {
        assert!(fs::metadata(work.path().join(file)).unwrap().len() > 1000, "{file}");
    }
}

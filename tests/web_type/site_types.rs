//! Types of the site's configuration, without a change of code.

use crate::tool::Tool;

const SITE: &str = r#"
types:
  perl-http:
    description: a server in Perl
    aliases: [perl]
    needs:
      - [server.pl, www/perl/server.pl]
    directory: www/perl
    arguments: append
    command:
      - perl
      - "{home}/www/perl/server.pl"
      - "{port} {tool} {mount}"
      - if: www/perl/extra.txt
        words: [extra, "{{word}}"]
  nodejs:
    command: [sh, -c, "echo replaced"]
  uwsgi-plain: null
"#;

const SERVER: &str = r#"
    use IO::Socket::INET; use Cwd;
    my $socket = IO::Socket::INET->new(LocalAddr => "0.0.0.0", LocalPort => $ENV{PORT}, Listen => 5, ReuseAddr => 1) or die;
    while (1) {
        my $client = $socket->accept or next;
        while (<$client>) { last if /^\r\n$/ }
        print $client "HTTP/1.0 200 OK\r\n\r\n", join("|", getcwd(), @ARGV);
        close $client;
    }
"#;

#[test]
fn site_type_runs_by_its_template() {
    let Some(tool) = Tool::create() else { return };
    tool.write("www/perl/server.pl", SERVER);
    tool.write("site.yaml", SITE);
    let site = tool.home().join("site.yaml");
    let site = site.to_str().unwrap();
    let directory = tool.home().join("www/perl").display().to_string();
    let server = tool.start(&["--config", site, "--type", "perl", "--", "a b", "$HOME", ""]);
    let port = server.address().port();
    assert_eq!(server.get("/").1, format!("{directory}|{port} hello /hello|a b|$HOME|"));
    drop(server);
    tool.write("www/perl/extra.txt", "");
    let server = tool.start(&["--config", site, "--type", "perl-http", "--canonical"]);
    let port = server.address().port();
    assert_eq!(server.get("/").1, format!("{directory}|{port} hello /|extra|{{word}}"));
    drop(server);
    // A replaced type and a removed one.
    let ended = tool.run(&["--config", site, "--type", "nodejs"]);
    assert_eq!((ended.status, &*ended.out), (Some(0), "replaced\n"), "{ended:?}");
    let ended = tool.run(&["--config", site, "--type", "uwsgi-plain"]);
    assert!(ended.status == Some(64) && ended.error.contains("perl-http, perl"), "{ended:?}");
}

#[test]
fn invalid_site_configuration_is_reported() {
    let Some(tool) = Tool::create() else { return };
    for (content, status, words) in [
        ("types:\n  x:\n    comand: [x]\n", 78, &["site.yaml", "line 3", "comand", "command"][..]),
        ("gridengine:\n  memory: lots\n", 78, &["site.yaml", "line 2", "\"lots\"", "h_vmem=4G"]),
        ("types:\n  x:\n    command: [x, '{prot}']\n", 78, &["line 3", "{prot}", "{port}"]),
    ] {
        tool.write("site.yaml", content);
        let site = tool.home().join("site.yaml");
        let ended = tool.run(&["--config", site.to_str().unwrap(), "true"]);
        assert_eq!((ended.status, &*ended.out), (Some(status), ""), "{ended:?}");
        for word in words {
            assert!(ended.error.contains(word), "no {word:?} in {}", ended.error);
        }
    }
    let ended = tool.run(&["--config", "/nowhere/site.yaml", "true"]);
    assert!(ended.status == Some(66) && ended.error.contains("/nowhere/site.yaml"), "{ended:?}");
}

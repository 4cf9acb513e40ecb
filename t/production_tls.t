# TLS of the shipped files: 1.2 and 1.3 with forward secrecy, HTTP/2, sessions resumed from shared memory and without tickets.
use lib 't/lib';
use Production;

site('urlproxy', 'domainproxy');
route(hello => tool('10.0.0.2'));

# What openssl s_client says of one connection; its options follow.
sub connects {
    my ($host, @options) = @_;
    my $command = join ' ', map { quotemeta } 'timeout', 60, qw(openssl s_client -connect 127.0.0.1:443 -CAfile /tmp/production/ca.pem -servername), $host, @options;
    return `$command </dev/null 2>&1`;
}
for my $host ('tools.example.org', 'hello.toolforge.org', 'project.wmcloud.org') {
    like(connects($host, '-tls1_3'), qr/Verify return code: 0 .*/s, "$host: TLS 1.3");
    like(connects($host, '-tls1_2'), qr/Cipher is ECDHE-ECDSA-AES\d+-GCM/, "$host: TLS 1.2");
    like(connects($host, '-tls1_1', '-cipher', 'ALL:@SECLEVEL=0'), qr/Cipher is \(NONE\)/, "$host: no TLS 1.1, although nginx.conf has it");
    like(connects($host, '-tls1_2', '-cipher', 'AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA'), qr/Cipher is \(NONE\)/, "$host: no weak cipher");
    like(connects($host, '-alpn', 'h2,http/1.1'), qr/ALPN protocol: h2/, "$host: HTTP/2");
    unlike(connects($host, '-tls1_2'), qr/TLS session ticket:/, "$host: no ticket");
}
like(connects('tools.example.org', '-tls1_2', '-reconnect'), qr/(?:^Reused, TLSv1\.2.*?){5}/ms, 'sessions are resumed by both workers');
my $answer = fetch_h2('https://tools.example.org/hello/');
like($answer->{head}, qr{^HTTP/2 200}, 'a request over HTTP/2 reaches the tool');
like($answer->{body}, qr{^Host: tools\.example\.org\r$}m, 'with its host');
done_testing();

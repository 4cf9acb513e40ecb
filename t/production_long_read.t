# A tool may be silent for most of an hour before it answers, and a WebSocket while it is open. Only the clock of nginx is moved.
use lib 't/lib';
use Production;

my ($library) = glob '/usr/lib/*/faketime/libfaketimeMT.so.1' or die "libfaketimeMT.so.1 is missing: install the package faketime\n";
my $clock = '/tmp/production/clock';
write_file($clock, '+0');
%Production::environment = (LD_PRELOAD => $library, FAKETIME_TIMESTAMP_FILE => $clock, FAKETIME_NO_CACHE => 1);
# One worker, so that every request wakes it.
$Production::workers = 1;
site('urlproxy', 'domainproxy');
my $tool = serve('10.0.0.3', 8000);
route(slow => '10.0.0.3:8000');
route('one.example.net' => '10.0.0.3:8000');

my $minutes = 0;
sub date { return fetch('https://tools.example.org/.well-known/healthz')->{headers}{date} =~ s/:\d\d GMT//r }

# Moves the clock. Timers fire after the events of a wake-up, so before the next request is answered.
sub wait_minutes {
    my ($count) = @_;
    my $before = date();
    $minutes += $count;
    write_file("$clock.new", "+${minutes}m");
    rename "$clock.new", $clock or die "$clock: $!\n";
    date() ne $before or die "the clock of nginx does not move\n";
    date();
}

sub read_until {
    my ($socket, $end) = @_;
    my $text = '';
    until ($text =~ $end) {
        IO::Select->new($socket)->can_read(60) or die "nothing after: $text\n";
        sysread($socket, $text, 1, length $text) or return "$text (the end)";
    }
    return $text;
}

sub starts {
    my ($host, $path, @headers) = @_;
    my ($in, $out, $pid) = client_on($host);
    syswrite $out, join "\r\n", "GET $path HTTP/1.1", "Host: $host", 'User-Agent: test', @headers, '', '';
    my $backend = $tool->accept;
    read_until($backend, qr/\r\n\r\n\z/);
    return ($in, $out, $pid, $backend);
}

my @sites = (['tools.example.org', '/slow/'], ['slow.toolforge.org', '/'], ['one.example.net', '/']);
my @asked = map { [starts(@$_)] } @sites;
wait_minutes(58);
for (0 .. $#sites) {
    my ($in, undef, $pid, $backend) = @{ $asked[$_] };
    syswrite $backend, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate";
    like(read_until($in, qr/late\z/), qr{^HTTP/1\.1 200 }, "$sites[$_][0]: after 58 minutes");
    hang_up($pid);
}
my ($in, $out, $pid, $backend) = starts(@{ $sites[0] });
wait_minutes(62);
like(read_until($in, qr/\r\n\r\n\z/), qr{^HTTP/1\.1 504 }, 'after 62 minutes it is too late');
hang_up($pid);

($in, $out, $pid, $backend) = starts(@{ $sites[1] }, 'Connection: Upgrade', 'Upgrade: websocket');
syswrite $backend, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
read_until($in, qr/\r\n\r\n\z/);
wait_minutes(58);
syswrite $out, "ping\n";
is(read_until($backend, qr/\n\z/), "ping\n", 'an idle WebSocket, to the tool');
wait_minutes(58);
syswrite $backend, "pong\n";
is(read_until($in, qr/\n\z/), "pong\n", 'and from the tool');
hang_up($pid);
done_testing();

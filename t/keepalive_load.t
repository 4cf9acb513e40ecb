# Under load, backends that close after each response, or send extra data, fail no request: GET and POST in turn, on many
# client connections.
use lib 't/lib';
use UrlproxyTest 'no_plan';

use IO::Select;
use Socket qw(IPPROTO_TCP SOL_SOCKET SO_REUSEADDR TCP_NODELAY);
use Time::HiRes ();

# Time that a backend needs to close. A request within this time may fail, as with any server.
our $unnoticed_seconds = 0.005;

# Starts a process that answers requests, then acts as `manner` says. GET /hello/late returns how many connections it closed
# too late for nginx to notice, and how many it had.
sub serve_in_background {
    my ($listener, $manner) = @_;
    my $pid = fork // die "fork: $!\n";
    return $pid if $pid;
    $SIG{PIPE} = 'IGNORE';
    my ($late, $count, %text) = (0, 0);
    my $waiting = IO::Select->new($listener);
    while (1) {
        for my $socket ($waiting->can_read) {
            if ($socket == $listener) {
                my $new = $listener->accept or next;
                $count++;
                $waiting->add($new);
                next;
            }
            my $is_open = sysread $socket, $text{$socket}, 65536, length($text{$socket} // '');
            if (!$is_open) {
                delete $text{$socket};
                $waiting->remove($socket);
                close $socket;
                next;
            }
            my ($head, $body) = $text{$socket} =~ /\A(.*?\r\n)\r\n(.*)\z/s or next;
            next if $head =~ /^Content-Length: (\d+)/mi && length $body < $1;
            delete $text{$socket};
            my $says = $head =~ m{^GET /hello/late} ? "$late $count" : 'ok';
            my $begin = Time::HiRes::time();
            syswrite $socket, "HTTP/1.1 200 OK\r\nContent-Length: @{[length $says]}\r\n\r\n$says";
            if ($manner eq 'speaks') { syswrite $socket, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n" }
            $waiting->remove($socket);
            close $socket;
            $late++ if Time::HiRes::time() - $begin > $main::unnoticed_seconds;
        }
    }
}

# Sends GET and POST in turn on several connections until enough are answered. Returns the count per status.
sub ask_many {
    my ($connections, $number, $path) = @_;
    my (%statuses, %methods, $sent);
    my $ask = sub {
        my ($client) = @_;
        return if $sent++ >= $number;
        my $method = $methods{$client} = $sent % 2 ? 'GET' : 'POST';
        my $rest   = $sent % 2 ? "\r\n" : "Content-Length: 10\r\n\r\n0123456789";
        send_bytes($client, "$method $path HTTP/1.1\r\nHost: localhost\r\n$rest");
    };
    my $clients = IO::Select->new(map { to_nginx() } 1 .. $connections);
    $ask->($_) for $clients->handles;
    for (1 .. $number) {
        my ($client) = $clients->can_read($timeout) or die "nothing comes any more\n";
        my $head = read_answer($client);
        $statuses{$methods{$client}}{ $head =~ m{^HTTP/1\.1 (\d+)} ? $1 : $head }++;
        if ($head =~ /^Connection: close/mi) {
            $clients->remove($client);
            $clients->add($client = to_nginx());
        }
        $ask->($client);
    }
    return \%statuses;
}

# Reads a response with Content-Length; faster than `answer`.
sub read_answer {
    my ($client) = @_;
    my $text = '';
    while (1) {
        IO::Select->new($client)->can_read($timeout) && sysread($client, $text, 65536, length $text) or die "no whole response: $text\n";
        my ($head, $body) = $text =~ /\A(.*?\r\n)\r\n(.*)\z/s or next;
        return $head if $head =~ /^Content-Length: (\d+)/mi && length $body >= $1;
    }
}

sub none_fails {
    my ($manner) = @_;
    my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 512) or die "socket: $!\n";
    my $pid      = serve_in_background($listener, $manner);
    redis('HSET', 'prefix:hello', '.*', 'http://127.0.0.1:' . $listener->sockport);
    close $listener;
    my $is_done = eval {
        (eventually { ask('GET /list')->{body} =~ /"hello"/ }) or die "no route\n";
        my $statuses = ask_many(16, 3000, '/hello/');
        my ($late, $count) = split ' ', ask('GET /hello/late')->{body};
        my $failed = 0;
        $failed += delete $_->{502} // 0 for values %$statuses;
        # What a backend says unasked may be taken for the response to the next request, if that can be repeated. The
        # connection then has served two, so that it may be taken once more before the backend closes it.
        my $misread = $manner eq 'speaks' ? delete $statuses->{GET}{408} // 0 : 0;
        cmp_ok($failed, '<=', $late + $misread, "$failed failed; of $count connections $late were closed late, $misread misread");
        is(join(' ', keys %{ $statuses->{$_} }), 200, "$_: nothing else went wrong") for qw(GET POST);
        cmp_ok($count, '>', 100, "$count connections");
        1;
    };
    my $error = $@;
    kill 'TERM', $pid;
    waitpid $pid, 0;
    die $error unless $is_done;
}

run_tests;

__DATA__

=== backends that close at once fail no request
--- upstream
urlproxy_keepalive 64;
--- perl
none_fails('closes');



=== backends that send extra data fail no request
--- upstream
urlproxy_keepalive 64;
--- perl
none_fails('speaks');



=== streamed bodies fail no request
--- upstream
urlproxy_keepalive 64;
--- location
proxy_request_buffering off;
--- perl
none_fails('closes');



=== no request is sent twice
--- upstream
urlproxy_keepalive 64;
--- location
proxy_next_upstream off;
--- perl
none_fails('closes');

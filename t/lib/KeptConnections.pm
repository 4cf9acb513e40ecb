# Test backends that number the connections from nginx, so that a test can identify the connection of a request, and the
# connections still open.
#
# There are eight, $TEST_NGINX_PEER_1 to _8. The first connection to backend 1 is "1.1", the second "1.2". Each block starts
# at 1.
package KeptConnections;

use v5.10.1;
use strict;
use warnings;

use Exporter 'import';
use IO::Select ();
use Socket qw(MSG_DONTWAIT MSG_PEEK SOL_SOCKET SO_LINGER);
use Test::Nginx::Socket ();
use Time::HiRes qw(sleep);
use UrlproxyTest;

our @EXPORT = qw(
    arrived begun close_as_backend connection connections_are finish idle open_connections respond serve serve_together stop_listening
    while_stopped worker_descriptors
);

# Longer than the idle time after which a request that nginx cannot repeat may use a kept connection.
my $idle_seconds = 0.2;
my $ok           = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

my (%listeners, %connections, %opened);

# Created before the blocks are read, so that sections with `eval` can use them.
sub listen_as {
    my ($number) = @_;
    $listeners{$number} = UrlproxyTest::tcp_socket(Listen => 512);
    UrlproxyTest::export_address("PEER_$number", $listeners{$number});
}
listen_as($_) for 1 .. 8;

Test::Nginx::Socket::add_block_preprocessor(sub {
    %connections = ();
    open_connections();
    %connections = %opened = ();
    $listeners{$_} // listen_as($_) for 1 .. 8;
});

# Sends a request, responds as backend, and returns the connection of the request. `answer` is the backend's response, `status`
# the expected status, `client` an existing client connection; `headers` and `body` belong to the request.
sub serve {
    my ($line, %with) = @_;
    my ($id) = serve_together([$line, %with]);
    return $id;
}

# The same for several concurrent requests (a line, or a line with options): all arrive before the first response.
sub serve_together {
    my @asked;
    for my $request (@_) {
        my ($line, %with) = ref $request ? @$request : $request;
        my $client = $with{client};
        if ($client) {
            my $length = defined $with{body} ? "Content-Length: @{[length $with{body}]}\r\n" : '';
            send_bytes($client, "$line HTTP/1.1\r\nHost: localhost\r\n$length\r\n" . ($with{body} // ''));
        } else {
            $client = start_ask($line, map { defined $with{$_} ? ($_ => $with{$_}) : () } qw(headers body));
        }
        push @asked, { %with, line => $line, socket => $client, id => scalar arrived($client) };
    }
    for my $request (@asked) {
        respond($request->{id}, $request->{answer} // $ok);
        finish($request->{socket}, $request->{line}, $request->{status} // 200);
    }
    return map { $_->{id} } @asked;
}

# Reads the response of the client, which must have this status.
sub finish {
    my ($client, $line, $status) = @_;
    my $answer = UrlproxyTest::answer($client, $line =~ /^HEAD /);
    $answer->{status} == $status or die "$line: $answer->{status} instead of $status\n";
    return $answer;
}

# Waits for the next request at any backend, reads it, and returns its connection; in list context also the request. Dies if
# the client gets a response instead.
sub arrived {
    my ($client) = @_;
    my $id       = begun($client);
    my $request  = read_message($connections{$id});
    return wantarray ? ($id, $request) : $id;
}

# Waits until a request begins to arrive, and returns its connection.
sub begun {
    my ($client) = @_;
    while (1) {
        my @ready   = IO::Select->new($client // (), values %listeners, values %connections)->can_read($timeout)
            or die "no request came to a backend\n";
        my %is_ready = map { $_ => 1 } @ready;
        accept_from($_) for grep { $is_ready{ $listeners{$_} } } keys %listeners;
        for my $id (grep { $is_ready{ $connections{$_} } } keys %connections) {
            return $id unless forget_closed($id);
        }
        if ($client && $is_ready{$client}) {
            my $answer = UrlproxyTest::answer($client);
            die "answered without a backend: $answer->{head}\n";
        }
    }
}

sub accept_from {
    my ($number) = @_;
    my $id = "$number." . ++$opened{$number};
    $connections{$id} = $listeners{$number}->accept or die "accept: $!\n";
}

# Forgets a connection if nginx has closed it. Returns whether it has.
sub forget_closed {
    my ($id) = @_;
    my $got = recv $connections{$id}, my $byte, 1, MSG_PEEK | MSG_DONTWAIT;
    return 0 if defined $got ? length $byte : $!{EAGAIN};
    delete $connections{$id};
    return 1;
}

sub respond {
    my ($id, $bytes) = @_;
    send_bytes($connections{$id}, $bytes // $ok);
}

# The socket of a connection.
sub connection { $connections{ $_[0] } // die "connection $_[0] is closed\n" }

# Closes connections as a backend. `how` is close, reset, or half (keeps reading). `close` and `reset` forget them.
sub close_as_backend {
    my ($how, @ids) = @_;
    for my $id (@ids) {
        my $socket = connection($id);
        if ($how eq 'half') { shutdown $socket, 1; next }
        setsockopt $socket, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0 if $how eq 'reset';
        delete $connections{$id};
        close $socket;
    }
}

# Refuses connections to a backend from now on.
sub stop_listening { close delete $listeners{ $_[0] } }

# The connections that nginx has not closed, in the order in which it opened them to each backend.
sub open_connections {
    for my $number (keys %listeners) {
        accept_from($number) while IO::Select->new($listeners{$number})->can_read(0);
    }
    forget_closed($_) for keys %connections;
    my @ids = map { [split /\./] } keys %connections;
    return join ' ', map { "$_->[0].$_->[1]" } sort { $a->[0] <=> $b->[0] || $a->[1] <=> $b->[1] } @ids;
}

# Checks that exactly these connections are open, once nginx has had the time to close others.
sub connections_are {
    my ($want, $name) = @_;
    eventually { open_connections() eq $want };
    Test::More::is(open_connections(), $want, $name // "open: $want");
}

# Waits until kept connections are usable for requests that nginx cannot repeat.
sub idle { sleep $idle_seconds }

# Runs code while nginx's worker is stopped. The worker then sees all events at once, in the order of the code.
sub while_stopped {
    my ($code) = @_;
    my ($worker) = worker_pids();
    kill 'STOP', $worker;
    my $has_stopped = eventually { `ps -L -o stat= -p $worker` !~ /^[^T]/m };
    my $is_done = eval { $code->(); (eventually { is_all_delivered() }) or die "the kernel still holds bytes\n"; 1 };
    kill 'CONT', $worker;
    $has_stopped or die "the worker does not stop\n";
    $is_done or die $@;
}

# Whether all that this process sent has reached the worker's sockets: on a busy machine the kernel delivers later, also on loopback.
sub is_all_delivered {
    my %is_ours = map { $_->sockport => 1 } values %listeners;
    open my $table, '<', '/proc/net/tcp' or die "/proc/net/tcp: $!\n";
    for (grep { /:/ } <$table>) {
        my ($local, $remote, $state, $queues) = (split)[1 .. 4];
        my ($from, $to) = map { hex s/.*://r } $local, $remote;
        next unless $is_ours{$from} || $to == server_port_for_client();
        # FIN_WAIT1, CLOSING and LAST_ACK: the end is not acknowledged yet.
        return 0 if $queues !~ /^0+:/ && $state ne '0A' || $state =~ /^(?:04|0B|09)$/;
    }
    return 1;
}

# The number of the worker's descriptors that are connected to these backends.
sub worker_descriptors {
    my ($worker) = worker_pids();
    my %is_ours = map { $_->sockport => 1 } values %listeners;
    open my $table, '<', '/proc/net/tcp' or die "/proc/net/tcp: $!\n";
    # Columns 3 and 10: the remote end, and the inode of the descriptor.
    my %inodes = map { (split)[9, 2] } grep { /:/ } <$table>;
    my @links  = map { readlink($_) // () } glob "/proc/$worker/fd/*";
    return scalar grep { /^socket:\[(\d+)\]/ && $is_ours{ hex(($inodes{$1} // '') =~ s/.*://r) } } @links;
}

1;

# The client end of a session with a server, over TLS.
package OpenGNSP::Session;
use v5.26;
use strict;
use warnings;
use feature 'signatures';
no warnings 'experimental::signatures';
use IO::Socket::SSL;
use OpenGNSP::End;
use Time::HiRes 'time';

use constant { REPLY_SECONDS => 30, READ_OCTETS => 65_536 };

# Connect and greet. The name of the server is proven by its certificate, and so is its role.
sub open ($class, $protocol, %how) {
    my ($host, $port) = $how{server} =~ /^\[?(.*?)\]?:(\d+)$/ or die "$how{server} is no HOST:PORT\n";
    my $socket = IO::Socket::SSL->new(
        PeerHost => $host, PeerPort => $port, Timeout => REPLY_SECONDS,
        SSL_version => 'TLSv1_3', SSL_verify_mode => SSL_VERIFY_PEER, SSL_verifycn_scheme => 'default',
        SSL_ca_file => $how{ca}, SSL_cert_file => $how{cert}, SSL_key_file => $how{key},
    ) or die "$how{server}: $SSL_ERROR\n";
    my $subject = Net::SSLeay::X509_get_subject_name($socket->peer_certificate);
    my $role = Net::SSLeay::X509_NAME_get_text_by_NID($subject, Net::SSLeay::NID_organizationalUnitName()) =~ s/\0\z//r;
    die "$how{server} has the role $role\n" if $role ne 'server';
    my $self = bless { protocol => $protocol, socket => $socket, end => OpenGNSP::End->new($protocol, 'client'),
        number => 0, waiting => [], parts => 0 }, $class;
    $self->send(0, { type => 'hello', versions => [OpenGNSP::End::VERSION], software => $how{software},
        parts => OpenGNSP::End::PARTS_MAX });
    my (undef, undef, $message) = $self->event->@*;
    die "$message->{type}: ", $message->{reason} // $message->{message}, "\n" if $message->{type} ne 'welcome';
    $self->{welcome} = $message;
    return $self;
}

sub send ($self, $number, $message) {
    my $frame = $self->{protocol}->write_frame($number, $message);
    $self->{socket}->print($frame) or die "the session ended: $SSL_ERROR\n";
}

# The next event of the session, whatever it is.
sub event ($self) {
    my $until = time + REPLY_SECONDS;
    until ($self->{waiting}->@*) {
        die "the session ended\n" if $self->{end}{state} eq 'ended';
        vec(my $readable = '', fileno $self->{socket}, 1) = 1;
        die "nothing has come\n"
            if !$self->{socket}->pending && !select $readable, undef, undef, $until - time > 0 ? $until - time : 0;
        $self->{socket}->sysread(my $octets, READ_OCTETS) or die "the session ended: $SSL_ERROR\n";
        push $self->{waiting}->@*, $self->{end}->feed($octets);
    }
    return shift $self->{waiting}->@*;
}

# Send a request and return the reply; what is pushed meanwhile waits. Dies with the code and text of a refusal.
sub ask ($self, $request) {
    my $number = ++$self->{number};
    $self->{end}->asked($number);
    $self->send($number, $request);
    my @pushed;
    while (my $event = $self->event) {
        my ($what, $of, $message, $text) = @$event;
        if ($of != $number) {
            push @pushed, $event;
            next;
        }
        unshift $self->{waiting}->@*, @pushed;
        die "$message: $text\n" if $what eq 'refused';
        return $message;
    }
}

# The next message that the server pushes.
sub pushed ($self) {
    my (undef, undef, $message) = $self->event->@*;
    my $why = $message->{reason} // $message->{message} // '';
    die "$message->{type}: $why\n" if $message->{type} =~ /^(goodbye|refusal)$/;
    return $message;
}

sub acknowledge ($self, $revision) { $self->send(0, { type => 'acknowledge', revision => $revision }) }

sub close ($self) { $self->{socket}->close }

1;

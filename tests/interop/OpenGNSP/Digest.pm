# The digests of rows and of instances: BLAKE2b (RFC 7693) of 32 octets without a key, and sums of it.
package OpenGNSP::Digest;
use v5.26;
use strict;
use warnings;
use feature 'signatures';
no warnings qw(experimental::signatures portable);    # 64-bit integers are a matter of course
use Math::BigInt;
use OpenGNSP::MessagePack qw(write_integer write_string write_array);

my @START = (0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179);
my @ORDER = map { [map { hex } split //] } qw(0123456789abcdef ea489fd61c02b753 b8c052fdae367194 7931dcbe265a40f8
    905724afe1bc683d 2c6a0b834d75fe19 c51fed4a0763928b db7ec13950f4862a 6fe9b308c2d714a5 a2847615fb9e3cd0);
my @MIX = ([0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15],
    [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]);

sub turned ($word, $by) { return ($word >> $by) | ($word << (64 - $by)) }

sub blake2b ($octets) {
    my @state = @START;
    $state[0] ^= 0x0101_0020;
    my $blocks = int((length($octets) + 127) / 128) || 1;
    for my $block (0 .. $blocks - 1) {
        my $last = $block == $blocks - 1;
        my @message = unpack 'Q<16', substr($octets, 128 * $block, 128) . "\0" x 128;
        my @v = (@state, @START);
        $v[12] ^= $last ? length $octets : 128 * ($block + 1);
        $v[14] ^= ~0 if $last;
        for my $round (0 .. 11) {
            my @order = $ORDER[$round % 10]->@*;
            for my $mix (@MIX) {
                my ($i, $j, $k, $l) = @$mix;
                for my $by ([32, 24], [16, 63]) {
                    { use integer; $v[$i] += $v[$j] + $message[shift @order] }
                    $v[$l] = turned($v[$l] ^ $v[$i], $by->[0]);
                    { use integer; $v[$k] += $v[$l] }
                    $v[$j] = turned($v[$j] ^ $v[$k], $by->[1]);
                }
            }
        }
        $state[$_] ^= $v[$_] ^ $v[ $_ + 8 ] for 0 .. 7;
    }
    return unpack 'H*', pack 'Q<4', @state;
}

# The canonical octets of a row, or of a policy.
sub octets ($protocol, $kind, $row) {
    my %type = map { $_->[0] => $_ } $protocol->{fields}{$kind}->@*;
    my @written = map {
        my (undef, $type, $default) = $type{$_}->@*;
        my $value = exists $row->{$_} ? $row->{$_} : $default->{value};
        $_ eq 'policy' ? octets($protocol, 'policy', $value) : $protocol->write_value($type, $value);
    } $protocol->{digested}{$kind}->@*;
    return write_array($kind eq 'policy' ? () : write_string($kind), @written);
}

# The digest of a set, from the octets of its members.
sub sum (@octets) {
    my $sum = Math::BigInt->new(0);
    $sum += Math::BigInt->from_hex(blake2b($_)) for @octets;
    return sprintf '%064s', ($sum % Math::BigInt->new(2)->bpow(256))->to_hex;
}

sub instance_octets ($instance) {
    my ($service, $address, $port, $epoch) = $instance->@{qw(service address port epoch)};
    return write_array(write_string($service), write_string($address), write_integer($port), write_integer($epoch));
}

1;

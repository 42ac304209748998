//! The laws of the fuzz targets, on random input.

use proptest::prelude::*;

use crate::law;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn frames_come_back_and_packets_are_neither_lost_nor_changed_nor_overtaken(
        data in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        law::holds(&data);
    }

    /// Random bytes rarely make long runs of one flow: here all but a few packets go on with it.
    #[test]
    fn runs_of_a_few_flows_hold_to_it_too(
        records in proptest::collection::vec((0_u8..3, any::<u16>(), any::<[u8; 4]>(), 0_u8..60), 0..80),
        datagrams: bool,
    ) {
        let mut data = vec![if datagrams { 1 } else { 3 }];
        for (flow, length, [rare, oddity, detail, place], when) in records {
            let [high, low] = (length % 1400).to_be_bytes();
            // Three packets of four are as the one before.
            let oddity = if rare % 4 == 0 { oddity } else { 0xff };
            data.extend([flow, high, low, oddity, detail, place, detail, when]);
        }
        law::holds(&data);
    }

    #[test]
    fn any_bytes_are_a_frame_that_is_refused_or_split_right(
        data in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        law::tun_frame::holds(&data);
    }

    /// A good frame of which a few bytes are wrong.
    #[test]
    fn almost_good_frames_are_refused_or_split_right(
        (ipv6, tcp) in any::<(bool, bool)>(),
        payload in 0_usize..4000,
        gso_size in 1_u16..2000,
        flags: u8,
        changes in proptest::collection::vec((0_usize..90, any::<u8>()), 0..4),
        partial: bool,
    ) {
        let packet = law::packets::Packet { flags, ..law::packets::Packet::new(ipv6, tcp, payload) };
        let vnet = crate::splitting::header(&packet, gso_size);
        let mut data = vnet.encode().to_vec();
        data.extend(if partial { packet.to_frame() } else { packet.to_bytes() });
        for (at, change) in changes {
            if let Some(byte) = data.get_mut(at) {
                *byte ^= change;
            }
        }
        law::tun_frame::holds(&data);
    }
}

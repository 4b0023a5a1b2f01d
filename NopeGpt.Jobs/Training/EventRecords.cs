using System.Buffers;
using System.Buffers.Binary;
using System.Numerics;
using System.Text;

namespace NopeGpt.Jobs.Training;

/// <summary>TensorBoard's event files, as far as scalars need them: records of TFRecord framing (tensorflow/core/lib/io/record_writer.h), each one
/// message of type Event (tensorflow/core/util/event.proto, framework/summary.proto) in the wire format of Protocol Buffers.</summary>
internal sealed class EventRecords
{
    private const string FileVersion = "brain.Event:2";
    private const int Varint = 0, Fixed64 = 1, Delimited = 2, Fixed32 = 5;
    private const uint MaskDelta = 0xA282EAD8;

    private readonly ArrayBufferWriter<byte> _framed = new(), _event = new(), _summary = new(), _value = new();

    /// <summary>What is written and not yet taken.</summary>
    public ReadOnlyMemory<byte> Bytes => _framed.WrittenMemory;

    public void Clear() => _framed.ResetWrittenCount();

    /// <summary>The first record of a file.</summary>
    public void Version(DateTimeOffset time)
    {
        Begin(time, step: 0);
        Text(_event, 3, FileVersion);
        End();
    }

    /// <summary>The mark of a restart: a reader forgets what earlier files have from this step on.</summary>
    public void Purge(DateTimeOffset time, long step)
    {
        Begin(time, step);
        // session_log { status: START }
        Tag(_event, 7, Delimited);
        Number(_event, 2);
        Tag(_event, 1, Varint);
        Number(_event, 1);
        End();
    }

    /// <summary>Values of one step.</summary>
    public void Scalars(DateTimeOffset time, long step, IEnumerable<(string Tag, double Value)> scalars)
    {
        _summary.ResetWrittenCount();
        foreach ((string tag, double value) in scalars)
        {
            _value.ResetWrittenCount();
            Text(_value, 1, tag);
            Tag(_value, 2, Fixed32);
            BinaryPrimitives.WriteSingleLittleEndian(_value.GetSpan(sizeof(float)), (float)value);
            _value.Advance(sizeof(float));
            Message(_summary, 1, _value);
        }
        Begin(time, step);
        Message(_event, 5, _summary);
        End();
    }

    /// <summary>CRC-32C with the turn and offset that the framing asks for, so that a checksum of a checksum is no weaker.</summary>
    public static uint MaskedCrc(ReadOnlySpan<byte> bytes)
    {
        uint crc = uint.MaxValue;
        for (; bytes.Length >= sizeof(ulong); bytes = bytes[sizeof(ulong)..]) crc = BitOperations.Crc32C(crc, BinaryPrimitives.ReadUInt64LittleEndian(bytes));
        foreach (byte one in bytes) crc = BitOperations.Crc32C(crc, one);
        return unchecked(BitOperations.RotateRight(~crc, 15) + MaskDelta);
    }

    private void Begin(DateTimeOffset time, long step)
    {
        _event.ResetWrittenCount();
        Tag(_event, 1, Fixed64);
        BinaryPrimitives.WriteDoubleLittleEndian(_event.GetSpan(sizeof(double)), (time - DateTimeOffset.UnixEpoch).TotalSeconds);
        _event.Advance(sizeof(double));
        if (step == 0) return;
        Tag(_event, 2, Varint);
        Number(_event, (ulong)step);
    }

    private void End()
    {
        Span<byte> head = stackalloc byte[sizeof(ulong) + sizeof(uint)];
        BinaryPrimitives.WriteUInt64LittleEndian(head, (ulong)_event.WrittenCount);
        BinaryPrimitives.WriteUInt32LittleEndian(head[sizeof(ulong)..], MaskedCrc(head[..sizeof(ulong)]));
        _framed.Write(head);
        _framed.Write(_event.WrittenSpan);
        Span<byte> tail = stackalloc byte[sizeof(uint)];
        BinaryPrimitives.WriteUInt32LittleEndian(tail, MaskedCrc(_event.WrittenSpan));
        _framed.Write(tail);
    }

    private static void Text(ArrayBufferWriter<byte> to, int field, string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        Tag(to, field, Delimited);
        Number(to, (ulong)bytes.Length);
        to.Write(bytes);
    }

    private static void Message(ArrayBufferWriter<byte> to, int field, ArrayBufferWriter<byte> message)
    {
        Tag(to, field, Delimited);
        Number(to, (ulong)message.WrittenCount);
        to.Write(message.WrittenSpan);
    }

    private static void Tag(ArrayBufferWriter<byte> to, int field, int type) => Number(to, (ulong)((field << 3) | type));

    private static void Number(ArrayBufferWriter<byte> to, ulong value)
    {
        for (; value > 0x7F; value >>= 7) Byte((byte)(value | 0x80));
        Byte((byte)value);

        void Byte(byte one)
        {
            to.GetSpan(1)[0] = one;
            to.Advance(1);
        }
    }
}

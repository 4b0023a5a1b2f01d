using System.Buffers.Binary;
using System.Security.Cryptography;

namespace NopeGpt.Data.Chat;

/// <summary>The file of messages beside a token file of conversations. Little-endian: magic (8 bytes), version, header length (4 each),
/// conversations, messages (8 each), the checksum of the token file (32), SHA-256 (32), zeros up to the header's length. After it come the messages
/// (8 each: first token within the conversation (4), tokens of its header (2), whether it is a reply (2)) and the number of the first message
/// of every conversation (8 each). The checksum is over messages, index and the header with the checksum itself zero.</summary>
internal sealed record ChatFileLayout(long Conversations, long Messages, byte[] TokensChecksum, byte[] Checksum)
{
    public const int HeaderBytes = 128, Version = 1, MessageBytes = 8;
    private const int TokensChecksumAt = 32, ChecksumAt = 64;

    public static ReadOnlySpan<byte> Magic => "NOPECHAT"u8;

    public long IndexAt => HeaderBytes + (Messages * MessageBytes);
    public long FileBytes => IndexAt + (Conversations * sizeof(long));

    /// <summary>Where the messages of a token file are.</summary>
    public static string PathFor(string tokenFile) => Path.ChangeExtension(tokenFile, ".messages");

    public byte[] Write()
    {
        byte[] header = new byte[HeaderBytes];
        Magic.CopyTo(header);
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(8), Version);
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(12), HeaderBytes);
        BinaryPrimitives.WriteInt64LittleEndian(header.AsSpan(16), Conversations);
        BinaryPrimitives.WriteInt64LittleEndian(header.AsSpan(24), Messages);
        TokensChecksum.CopyTo(header.AsSpan(TokensChecksumAt));
        Checksum.CopyTo(header.AsSpan(ChecksumAt));
        return header;
    }

    /// <summary>The header, or what is wrong with it.</summary>
    public static (ChatFileLayout? Layout, string Problem) Read(ReadOnlySpan<byte> header, long fileBytes)
    {
        if (!header.StartsWith(Magic)) return (null, "it is no file of messages (its first bytes are others)");
        if (header.Length < HeaderBytes) return (null, "it ends inside its header");
        int version = BinaryPrimitives.ReadInt32LittleEndian(header[8..]);
        if (version != Version) return (null, $"it has format version {version}, and this program reads version {Version}");
        ChatFileLayout layout = new(
            BinaryPrimitives.ReadInt64LittleEndian(header[16..]),
            BinaryPrimitives.ReadInt64LittleEndian(header[24..]),
            header.Slice(TokensChecksumAt, SHA256.HashSizeInBytes).ToArray(),
            header.Slice(ChecksumAt, SHA256.HashSizeInBytes).ToArray());
        // Bounded by the file first, so that the products cannot overflow.
        bool sane = BinaryPrimitives.ReadInt32LittleEndian(header[12..]) == HeaderBytes
            && layout.Conversations >= 0 && layout.Conversations <= fileBytes && layout.Messages >= 0 && layout.Messages <= fileBytes;
        if (!sane) return (null, "its header contradicts itself");
        return layout.FileBytes == fileBytes ? (layout, "") : (null, $"it has {fileBytes} bytes instead of {layout.FileBytes}");
    }

    public byte[] WithoutChecksum() => (this with { Checksum = new byte[SHA256.HashSizeInBytes] }).Write();

    public static void WriteMessage(MessageSpan message, Span<byte> into)
    {
        BinaryPrimitives.WriteInt32LittleEndian(into, message.Start);
        BinaryPrimitives.WriteUInt16LittleEndian(into[4..], checked((ushort)message.Header));
        BinaryPrimitives.WriteUInt16LittleEndian(into[6..], message.Reply ? (ushort)1 : (ushort)0);
    }

    public static MessageSpan ReadMessage(ReadOnlySpan<byte> from) => new(
        BinaryPrimitives.ReadInt32LittleEndian(from), BinaryPrimitives.ReadUInt16LittleEndian(from[4..]), BinaryPrimitives.ReadUInt16LittleEndian(from[6..]) == 1);
}

using System.Buffers;
using System.Text.Json;

namespace NopeGpt.Jobs.Commands;

/// <summary>Makes of a line of JSON another line. One belongs to one thread.</summary>
internal abstract class LineConverter
{
    private const int MostShown = 60;

    /// <summary>Lines in which something was replaced by U+FFFD.</summary>
    public long Repaired { get; protected set; }

    /// <summary>Appends what the line becomes, without a line end.</summary>
    /// <param name="line">Without white space around it, and not empty.</param>
    /// <exception cref="LineException">It is not of the right form.</exception>
    public abstract void Convert(ReadOnlySpan<byte> line, ArrayBufferWriter<byte> into);

    /// <summary>The beginning of a value, for a message.</summary>
    protected static string Shown(ReadOnlySpan<byte> value)
    {
        string text = System.Text.Encoding.UTF8.GetString(value[..Math.Min(value.Length, 4 * MostShown)]);
        string line = string.Concat(text.Where(c => !char.IsControl(c) && c != '\ufffd'));
        // Not in the middle of a pair.
        int length = line.Length <= MostShown ? line.Length : char.IsHighSurrogate(line[MostShown - 1]) ? MostShown - 1 : MostShown;
        return length < line.Length || text.Length < value.Length / 4 ? line[..length] + "…" : line;
    }

    protected static LineException NoJson(JsonException e, ReadOnlySpan<byte> line, string cure) =>
        new($"{Shown(line)} is not valid JSON ({e.Message.Split(". ")[0].Split(" LineNumber")[0].TrimEnd('.')}, at byte {e.BytePositionInLine + 1}): {cure}");
}

/// <summary>A line that cannot be converted; the message says why and what to do.</summary>
internal sealed class LineException(string message) : Exception(message);

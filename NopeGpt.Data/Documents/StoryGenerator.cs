using System.Buffers;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using NopeGpt.Data.Documents.Stories;

namespace NopeGpt.Data.Documents;

/// <summary>Small children's stories from a grammar of our own: the sample corpus that needs no download.
/// A story is a pure function of the seed and its index.</summary>
public static class StoryGenerator
{
    private const int BufferBytes = 1 << 20;

    /// <summary>One story, 80 to 250 words in paragraphs separated by an empty line.</summary>
    public static string Story(ulong seed, long index) => Write(new StoryRenderer(), seed, index).ToString();

    /// <summary>The stories of a seed in order; endless.</summary>
    public static IEnumerable<string> Stories(ulong seed)
    {
        StoryRenderer renderer = new();
        for (long index = 0; ; index++) yield return Write(renderer, seed, index).ToString();
    }

    /// <summary>Writes stories 0, 1, 2, ... of the seed to a .txt file (separated by a line &lt;|endoftext|&gt;) or a .jsonl file ({"text": ...} a line), as the
    /// ending of the path says, until the file has at least the given number of bytes. Written under a temporary name and renamed.</summary>
    /// <param name="path">the file to write; an existing one is replaced</param>
    /// <param name="bytes">at least so many bytes; the first story that reaches them is the last</param>
    /// <param name="seed">which stories</param>
    /// <param name="progress">is told the share that is done, 0 to 1</param>
    /// <param name="cancel">stops between two stories and leaves no file</param>
    /// <returns>The number of stories.</returns>
    /// <exception cref="ArgumentException">The path ends in something else, or bytes is not positive.</exception>
    public static long WriteCorpus(string path, long bytes, ulong seed, Action<double>? progress = null, CancellationToken cancel = default)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        if (bytes < 1) throw new ArgumentException($"The corpus size is {bytes} bytes; ask for at least 1.", nameof(bytes));
        bool json = Path.GetExtension(path).ToUpperInvariant() switch
        {
            ".JSONL" => true,
            ".TXT" => false,
            _ => throw new ArgumentException($"The corpus file {path} must end in .txt or .jsonl.", nameof(path)),
        };
        using AsideFile aside = new(path);
        long stories = WriteStories(aside.Stream, json, bytes, seed, progress, cancel);
        aside.Complete();
        return stories;
    }

    internal static StoryFacts Facts(ulong seed, long index)
    {
        StoryRandom random = Start(seed, index);
        return StoryFacts.Draw(ref random);
    }

    private static long WriteStories(Stream stream, bool json, long bytes, ulong seed, Action<double>? progress, CancellationToken cancel)
    {
        StoryRenderer renderer = new();
        ArrayBufferWriter<byte> buffer = new(BufferBytes + (1 << 16));
        using Utf8JsonWriter writer = new(buffer, new JsonWriterOptions { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping });
        long stories = 0, written = 0;
        while (written + buffer.WrittenCount < bytes)
        {
            cancel.ThrowIfCancellationRequested();
            ReadOnlySpan<char> story = Write(renderer, seed, stories);
            if (json)
            {
                writer.Reset();
                writer.WriteStartObject();
                writer.WriteString("text", story);
                writer.WriteEndObject();
                writer.Flush();
                buffer.Write("\n"u8);
            }
            else
            {
                if (stories > 0) buffer.Write("<|endoftext|>\n"u8);
                Encoding.UTF8.GetBytes(story, buffer);
                buffer.Write("\n"u8);
            }
            stories++;
            if (buffer.WrittenCount < BufferBytes) continue;
            stream.Write(buffer.WrittenSpan);
            written += buffer.WrittenCount;
            buffer.ResetWrittenCount();
            progress?.Invoke(Math.Min(1, (double)written / bytes));
        }
        stream.Write(buffer.WrittenSpan);
        progress?.Invoke(1);
        return stories;
    }

    private static StoryRandom Start(ulong seed, long index) => new(Mixing.Mix(seed, (ulong)index));

    private static ReadOnlySpan<char> Write(StoryRenderer renderer, ulong seed, long index)
    {
        StoryRandom random = Start(seed, index);
        StoryFacts facts = StoryFacts.Draw(ref random);
        return renderer.Render(facts, random);
    }
}

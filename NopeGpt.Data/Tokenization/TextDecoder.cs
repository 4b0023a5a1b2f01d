using System.Text;

namespace NopeGpt.Data.Tokenization;

/// <summary>Turns ids into text as they come. A character whose bytes are spread over several tokens is held back until it is whole.
/// Not safe for concurrent use.</summary>
public sealed class TextDecoder(Tokenizer tokenizer)
{
    private readonly Decoder _decoder = Encoding.UTF8.GetDecoder();

    /// <summary>The text that became complete with this token; often one word, empty while a character is not whole.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The tokenizer has no such id.</exception>
    public string Push(int id) => Convert(tokenizer.Bytes(id), flush: false);

    /// <summary>The end: bytes that never became a character come out as U+FFFD. After it the decoder is as new.</summary>
    public string Flush() => Convert([], flush: true);

    private string Convert(ReadOnlySpan<byte> bytes, bool flush)
    {
        char[] text = new char[_decoder.GetCharCount(bytes, flush)];
        int count = _decoder.GetChars(bytes, text, flush);
        return new string(text, 0, count);
    }
}

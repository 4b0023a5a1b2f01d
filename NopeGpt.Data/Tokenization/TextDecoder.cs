using System.Text;

namespace NopeGpt.Data.Tokenization;

/// <summary>Turns ids into text as they come. A character whose bytes are spread over several tokens is held back until it is whole.
/// Not safe for concurrent use.</summary>
public sealed class TextDecoder
{
    private readonly Tokenizer _tokenizer;
    private readonly int? _after;
    private readonly Decoder _decoder = Encoding.UTF8.GetDecoder();
    private int? _before;

    /// <param name="tokenizer">Whose ids they are.</param>
    /// <param name="after">The id before the first one: the last of a prompt that the text continues. Null where the ids begin a text; there, and
    /// after BOS, some tokenizers have a space that is not part of the text.</param>
    public TextDecoder(Tokenizer tokenizer, int? after = null)
    {
        (_tokenizer, _after) = (tokenizer, after);
        _before = after;
    }

    /// <summary>The text that became complete with this token; often one word, empty while a character is not whole.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The tokenizer has no such id.</exception>
    public string Push(int id)
    {
        string text = Convert(_tokenizer.BytesAfter(_before, id), flush: false);
        _before = id;
        return text;
    }

    /// <summary>The end: bytes that never became a character come out as U+FFFD. After it the decoder is as new.</summary>
    public string Flush()
    {
        _before = _after;
        return Convert([], flush: true);
    }

    private string Convert(ReadOnlySpan<byte> bytes, bool flush)
    {
        char[] text = new char[_decoder.GetCharCount(bytes, flush)];
        int count = _decoder.GetChars(bytes, text, flush);
        return new string(text, 0, count);
    }
}

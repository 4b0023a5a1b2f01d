using System.Buffers;
using System.CommandLine;
using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt tokenizer decode`: ids to texts, a line each.</summary>
internal sealed class TokenizerDecodeVerb() : Verb("decode", "Turn ids into texts: one JSON array of ids a line on stdin, one JSON string a line on stdout. Blank lines are passed over; bytes that are not UTF-8 become U+FFFD.")
{
    private readonly Option<string?> _tokenizer = TokenizerArgument.Option(), _tiktoken = CommonOptions.Tiktoken(), _root = CommonOptions.Root();

    public override IReadOnlyList<Option> Options => [_tokenizer, _tiktoken, _root];

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        TokenizerArgument? named = TokenizerArgument.Read(arguments, _tokenizer, _tiktoken, _root);
        return async cancel =>
        {
            Tokenizer tokenizer = await Task.Run(named!.Load, CancellationToken.None).WaitAsync(cancel);
            await StandardStreams.FilterAsync(() => new Converter(tokenizer), "one JSON array of ids a line, such as [1, 2]", cancel);
            return ExitCode.Done;
        };
    }

    private sealed class Converter(Tokenizer tokenizer) : LineConverter
    {
        private const string Cure = "give one JSON array of ids a line, such as [1, 2]";
        private static readonly JsonWriterOptions _options = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, SkipValidation = true };
        private readonly List<int> _ids = [];

        public override void Convert(ReadOnlySpan<byte> line, ArrayBufferWriter<byte> into)
        {
            _ids.Clear();
            try { ReadIds(line); }
            catch (JsonException e) { throw NoJson(e, line, Cure); }
            using Utf8JsonWriter writer = new(into, _options);
            writer.WriteStringValue(tokenizer.Decode(_ids));
        }

        private void ReadIds(ReadOnlySpan<byte> line)
        {
            Utf8JsonReader reader = new(line);
            reader.Read();
            if (reader.TokenType != JsonTokenType.StartArray) throw new LineException($"{Shown(line)} is no JSON array: {Cure}");
            while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
            {
                string? wrong = null;
                if (reader.TokenType != JsonTokenType.Number) wrong = "no number";
                else if (reader.TryGetInt32(out int id) && id >= 0 && id < tokenizer.VocabularySize) _ids.Add(id);
                else wrong = reader.ValueSpan.ContainsAny((byte)'.', (byte)'e', (byte)'E') ? "no whole number" : $"not in the vocabulary of {tokenizer.VocabularySize} tokens";
                if (wrong is null) continue;
                int start = (int)reader.TokenStartIndex;
                int place = _ids.Count + 1;
                reader.Skip();
                string value = Shown(line[start..(int)reader.BytesConsumed]);
                throw new LineException(string.Create(CultureInfo.InvariantCulture, $"value {place} is {value}, which is {wrong}: give whole numbers from 0 to {tokenizer.VocabularySize - 1}"));
            }
            // Throws where something stands behind the array.
            reader.Read();
        }
    }
}

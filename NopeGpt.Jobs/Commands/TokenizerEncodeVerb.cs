using System.Buffers;
using System.CommandLine;
using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Unicode;
using NopeGpt.Data.Documents.Parsing;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt tokenizer encode`: texts to ids, a line each.</summary>
internal sealed class TokenizerEncodeVerb() : Verb("encode", "Turn texts into ids: one JSON string a line on stdin, one JSON array of ids a line on stdout. Blank lines are passed over.")
{
    private readonly Option<string?> _tokenizer = TokenizerArgument.Option(), _tiktoken = CommonOptions.Tiktoken(), _root = CommonOptions.Root();
    private readonly Option<bool> _special = CommonOptions.Flag("--special", "The text of a special token becomes its id. Without it, it is ordinary text.");

    public override IReadOnlyList<Option> Options => [_tokenizer, _special, _tiktoken, _root];

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        TokenizerArgument? named = TokenizerArgument.Read(arguments, _tokenizer, _tiktoken, _root);
        bool special = arguments.Flag(_special);
        return async cancel =>
        {
            Tokenizer tokenizer = await Task.Run(named!.Load, CancellationToken.None).WaitAsync(cancel);
            long repaired = await StandardStreams.FilterAsync(() => new Converter(tokenizer, special), "one JSON string a line, such as \"hello\"", cancel);
            if (repaired > 0)
                await Console.Error.WriteLineAsync(string.Create(CultureInfo.InvariantCulture, $"{repaired} line(s) had halves of characters or bytes that are not UTF-8; each became U+FFFD before it was encoded"));
            return ExitCode.Done;
        };
    }

    private sealed class Converter(Tokenizer tokenizer, bool special) : LineConverter
    {
        private const string Cure = "give one JSON string a line, such as \"hello\"";
        private const int LongestId = 11;
        private readonly List<int> _ids = [];
        private byte[] _text = [];

        public override void Convert(ReadOnlySpan<byte> line, ArrayBufferWriter<byte> into)
        {
            _ids.Clear();
            ReadOnlySpan<byte> text = Text(line);
            if (special) tokenizer.EncodeWithSpecials(Encoding.UTF8.GetString(text), _ids);
            else tokenizer.Encode(text, _ids);
            Write(into);
        }

        private ReadOnlySpan<byte> Text(ReadOnlySpan<byte> line)
        {
            Utf8JsonReader reader = new(line);
            try
            {
                reader.Read();
                if (reader.TokenType != JsonTokenType.String) throw new LineException($"{Shown(line)} is no JSON string: {Cure}");
                ReadOnlySpan<byte> text = reader.ValueSpan;
                if (reader.ValueIsEscaped) text = Unescaped(ref reader);
                else if (!Utf8.IsValid(text)) Repaired++;
                // Throws where something stands behind the string.
                reader.Read();
                return text;
            }
            catch (JsonException e) { throw NoJson(e, line, Cure); }
        }

        private ReadOnlySpan<byte> Unescaped(scoped ref Utf8JsonReader reader)
        {
            if (_text.Length < reader.ValueSpan.Length) _text = new byte[Math.Max(reader.ValueSpan.Length, 2 * _text.Length)];
            try { return _text.AsSpan(0, reader.CopyString(_text)); }
            catch (InvalidOperationException)
            {
                Repaired++;
                return Encoding.UTF8.GetBytes(JsonText.Unescape(reader.ValueSpan));
            }
        }

        private void Write(ArrayBufferWriter<byte> into)
        {
            Span<byte> room = into.GetSpan((_ids.Count * (LongestId + 1)) + 2);
            int at = 0;
            room[at++] = (byte)'[';
            for (int i = 0; i < _ids.Count; i++)
            {
                if (i > 0) room[at++] = (byte)',';
                _ids[i].TryFormat(room[at..], out int length, default, CultureInfo.InvariantCulture);
                at += length;
            }
            room[at++] = (byte)']';
            into.Advance(at);
        }
    }
}

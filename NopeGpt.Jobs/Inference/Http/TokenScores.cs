using System.Text;
using NopeGpt.Data.Tokenization;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Inference.Http;

/// <summary>The logarithms of the probabilities of a reply's tokens in OpenAI's two shapes. The probabilities are those among the tokens that
/// could be drawn, after temperature, top-k, top-p and min-p.</summary>
internal sealed class TokenScores(bool chat)
{
    // What OpenAI writes for a probability whose logarithm JSON has no number for.
    private const double Impossible = -9999;

    private readonly List<(SampledToken Token, int Offset)> _waiting = [];
    private Tokenizer? _tokenizer;
    private int _length;

    /// <summary>What a token stands for; bytes that are a part of a character are shown as a replacement character.</summary>
    public static string Text(Tokenizer tokenizer, int id) => Encoding.UTF8.GetString(tokenizer.Bytes(id));

    public void Add(Tokenizer tokenizer, SampledToken token)
    {
        _tokenizer = tokenizer;
        _waiting.Add((token, _length));
        _length += Text(tokenizer, token.Id).Length;
    }

    /// <summary>The scores of the tokens since the last call; null where there are none.</summary>
    public object? Take()
    {
        if (_waiting.Count == 0) return null;
        object scores = chat
            ? new { content = _waiting.Select(w => Entry(w.Token.Id, w.Token.Probability, w.Token.Alternatives)).ToArray() }
            : new
            {
                tokens = _waiting.Select(w => Text(w.Token.Id)).ToArray(),
                token_logprobs = _waiting.Select(w => Log(w.Token.Probability)).ToArray(),
                top_logprobs = _waiting.Select(w => Best(w.Token.Alternatives)).ToArray(),
                text_offset = _waiting.Select(w => w.Offset).ToArray(),
            };
        _waiting.Clear();
        return scores;
    }

    private Dictionary<string, object> Entry(int id, float probability, IReadOnlyList<TokenProbability>? alternatives)
    {
        Dictionary<string, object> entry = new() { ["token"] = Text(id), ["logprob"] = Log(probability), ["bytes"] = Array.ConvertAll(_tokenizer!.Bytes(id).ToArray(), b => (int)b) };
        if (alternatives is not null) entry["top_logprobs"] = alternatives.Select(a => Entry(a.Id, a.Probability, null)).ToArray();
        return entry;
    }

    /// <summary>By text, as OpenAI has it; of tokens that look the same the likeliest stays.</summary>
    private Dictionary<string, double> Best(IReadOnlyList<TokenProbability> alternatives)
    {
        Dictionary<string, double> best = [];
        foreach (TokenProbability token in alternatives) best.TryAdd(Text(token.Id), Log(token.Probability));
        return best;
    }

    private string Text(int id) => Text(_tokenizer!, id);

    private static double Log(float probability) => probability > 0 ? Math.Log(probability) : Impossible;
}

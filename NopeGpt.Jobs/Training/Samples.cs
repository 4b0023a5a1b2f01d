using System.Text;
using NopeGpt.Data.Tokenization;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Training;

/// <summary>Texts that a model in training writes, so that a person can read how far it is.</summary>
internal static class Samples
{
    /// <summary>The continuation of a prompt, up to end-of-text. The same seed gives the same text.</summary>
    /// <param name="contextLength">Tokens that the model looks back on.</param>
    public static string Continue(Model.Decoder model, Tokenizer tokenizer, string prompt, int maxTokens, int contextLength, ulong seed, CancellationToken cancel = default)
    {
        bool training = model.training;
        model.eval();
        try
        {
            SamplingOptions sampling = new() { Temperature = 0.7, TopK = 50, TopP = 0.95, RepeatPenalty = 0 };
            // Every document of the corpus begins after an end-of-text, or with BOS.
            int[] tokens = [tokenizer.DocumentStartId, .. tokenizer.Encode(prompt)];
            TextRequest request = new(tokens, sampling, seed, maxTokens, tokenizer.StopIds);
            TextDecoder decoder = new(tokenizer, after: tokens[^1]);
            StringBuilder text = new();
            GeneratedText written = BatchGeneration.Run(model, [request], contextLength, tokenizer.VocabularySize, cancel)[0];
            foreach (SampledToken token in written.Tokens) text.Append(decoder.Push(token.Id));
            return text.Append(decoder.Flush()).ToString();
        }
        finally { model.train(training); }
    }
}

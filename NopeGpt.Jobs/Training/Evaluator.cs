using NopeGpt.Data;
using NopeGpt.Data.Tokenization;
using NopeGpt.Model;
using NopeGpt.Model.Replicas;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Jobs.Training;

/// <summary>Loss on the holdout.</summary>
/// <param name="Loss">Mean cross-entropy in nats a token.</param>
/// <param name="BitsPerByte">Loss in bits, over the bytes of the text that the targets stand for: comparable between tokenizers.</param>
internal sealed record Evaluation(double Loss, double BitsPerByte)
{
    public double Perplexity => Math.Exp(Loss);
}

/// <summary>Measures a model on the holdout, which never trains, in the order of the holdout.</summary>
/// <param name="holdout">Its batches, from the beginning each time.</param>
internal sealed class Evaluator(Decoder model, Func<IEnumerable<Batch>> holdout, Tokenizer tokenizer)
{
    // They stand for no text.
    private readonly HashSet<long> _marks = [tokenizer.EndOfTextId, .. tokenizer.SpecialTokens.Values];

    /// <param name="advanced">Told before each batch which it is, from 1.</param>
    public Evaluation Run(Action<int>? advanced = null, CancellationToken cancel = default)
    {
        bool training = model.training;
        model.eval();
        try
        {
            double sum = 0;
            long count = 0, bytes = 0;
            int number = 0;
            foreach (Batch batch in holdout())
            {
                cancel.ThrowIfCancellationRequested();
                advanced?.Invoke(++number);
                using DisposeScope scope = NewDisposeScope();
                using IDisposable quiet = no_grad();
                (Tensor tokens_BT, Tensor targets_BT, Packing? packing) = Tensors(batch, model.Device);
                sum += model.LossPerToken(tokens_BT, targets_BT, packing).sum(ScalarType.Float64).item<double>();
                foreach (long id in batch.Targets)
                {
                    if (id == BatchSource.IgnoredTarget) continue;
                    count++;
                    if (!_marks.Contains(id)) bytes += tokenizer.Bytes((int)id).Length;
                }
            }
            return new Evaluation(sum / count, sum / Math.Log(2) / Math.Max(1, bytes));
        }
        finally { model.train(training); }
    }

    /// <summary>A batch for a step of training.</summary>
    public static MicroBatch MicroBatch(Batch batch) =>
        new(batch.Rows, batch.Length, batch.Tokens, batch.Targets) { Sequences = batch.Packed ? batch.Sequences : null };

    /// <summary>A batch on a device, both [rows, length], int64, and which tokens belong together where a row has several sequences. Padding
    /// alone needs no telling: causal attention does not see it.</summary>
    public static (Tensor Tokens_BT, Tensor Targets_BT, Packing? Packing) Tensors(Batch batch, Device device) =>
        (tensor(batch.Tokens, [batch.Rows, batch.Length], device: device), tensor(batch.Targets, [batch.Rows, batch.Length], device: device),
            batch.Packed ? new Packing(batch.Sequences, batch.Rows, batch.Length) : null);
}

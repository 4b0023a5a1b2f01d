using System.Numerics;
using System.Runtime.InteropServices;
using NopeGpt.Model.Native;
using TorchSharp;

namespace NopeGpt.Model.Optimizers;

/// <summary>What <see cref="Adafactor"/> takes from the step's number and rate.</summary>
/// <param name="Weight">Of this step's squares in the running means: step^beta2_decay.</param>
/// <param name="Rho">min(rate, 1/√step).</param>
/// <param name="Keep">What weight decay leaves of a weight.</param>
internal readonly record struct AdafactorStep(double Weight, double Rho, double Keep);

/// <summary>Adafactor for float32 tensors in a CPU's memory, one tensor at a time. A matrix goes through the cores three times: squares of
/// gradients and weights, squares of the update, the update itself; the update is computed twice rather than stored, because memory is
/// slower than arithmetic. Work is cut by the shapes alone and partial sums are added in one order, so that the result does not depend on
/// the number of threads.</summary>
internal sealed unsafe class AdafactorKernel(AdafactorOptions options)
{
    // A chunk of rows is large against the cost of handing it out, and its share of the column sums small against its elements.
    private const int ChunkElements = 1 << 16, LeastRows = 32, InlineElements = 1 << 16;

    private readonly float limit = (float)(1 / options.Epsilon1);
    private float[] columnSums = [], columnScale = [];
    private double[] rowNormal = [], updateSquares = [], weightSquares = [];

    /// <param name="parameter">[..., n, m], contiguous.</param>
    /// <param name="rowVariance">[..., n, 1].</param>
    /// <param name="columnVariance">[..., 1, m].</param>
    public void Factored(torch.Tensor parameter, torch.Tensor gradient, torch.Tensor rowVariance, torch.Tensor columnVariance, AdafactorStep step)
    {
        int rows = checked((int)parameter.size(-2)), columns = checked((int)parameter.size(-1)), matrices = checked((int)(parameter.numel() / rows / columns));
        Rows weights = new(parameter, columns), gradients = new(gradient.contiguous(), columns), row = new(rowVariance, rows), column = new(columnVariance, columns);
        int height = Math.Clamp(ChunkElements / columns, LeastRows, Math.Max(LeastRows, rows)), perMatrix = (rows + height - 1) / height;
        Chunks chunks = new(matrices * perMatrix, height, perMatrix, rows, parameter.numel() <= InlineElements ? 1 : torch.get_num_threads());
        Reserve(chunks.Count, matrices, columns);

        chunks.Run((chunk, matrix, first, end) =>
        {
            Span<float> sums = columnSums.AsSpan(chunk * columns, columns), means = row[matrix];
            sums.Clear();
            double squares = 0;
            for (int i = first; i < end; i++)
            {
                float mean = (float)(AddSquares(gradients[((long)matrix * rows) + i], sums) / columns);
                means[i] = Lerp(means[i], mean, (float)step.Weight);
                squares += SumOfSquares(weights[((long)matrix * rows) + i]);
            }
            weightSquares[chunk] = squares;
        });
        for (int matrix = 0; matrix < matrices; matrix++)
        {
            Span<float> scale = columnScale.AsSpan(matrix * columns, columns);
            CloseColumns(columnSums.AsSpan(matrix * perMatrix * columns, perMatrix * columns), column[matrix], scale, rows, (float)step.Weight);
            double sum = 0;
            foreach (float mean in row[matrix]) sum += mean;
            rowNormal[matrix] = Math.Max(sum / rows, options.Epsilon1);
        }
        chunks.Run((chunk, matrix, first, end) =>
        {
            double squares = 0;
            for (int i = first; i < end; i++)
                squares += UpdateSquares(gradients[((long)matrix * rows) + i], columnScale.AsSpan(matrix * columns, columns), RowScale(row[matrix][i], matrix));
            updateSquares[chunk] = squares;
        });
        float factor = Factor(chunks.Count, parameter.numel(), step);
        chunks.Run((_, matrix, first, end) =>
        {
            for (int i = first; i < end; i++)
            {
                long at = ((long)matrix * rows) + i;
                Apply(weights[at], gradients[at], columnScale.AsSpan(matrix * columns, columns), RowScale(row[matrix][i], matrix), (float)step.Keep, factor);
            }
        });
    }

    /// <param name="parameter">[m] or no dimensions, contiguous.</param>
    /// <param name="variance">Of the same shape.</param>
    public void Whole(torch.Tensor parameter, torch.Tensor gradient, torch.Tensor variance, AdafactorStep step)
    {
        int size = checked((int)parameter.numel());
        Span<float> weights = new Rows(parameter, size)[0], gradients = new Rows(gradient.contiguous(), size)[0], means = new Rows(variance, size)[0];
        Reserve(1, 1, size);
        Span<float> scale = columnScale.AsSpan(0, size);
        for (int i = 0; i < size; i++)
        {
            means[i] = Lerp(means[i], gradients[i] * gradients[i], (float)step.Weight);
            scale[i] = 1 / MathF.Sqrt(means[i]);
        }
        weightSquares[0] = SumOfSquares(weights);
        updateSquares[0] = UpdateSquares(gradients, scale, 1);
        Apply(weights, gradients, scale, 1, (float)step.Keep, Factor(1, size, step));
    }

    private void Reserve(int chunks, int matrices, int columns)
    {
        if (columnSums.Length < chunks * columns) columnSums = new float[chunks * columns];
        if (columnScale.Length < matrices * columns) columnScale = new float[matrices * columns];
        if (rowNormal.Length < matrices) rowNormal = new double[matrices];
        if (updateSquares.Length < chunks) (updateSquares, weightSquares) = (new double[chunks], new double[chunks]);
    }

    /// <summary>α / max(1, RMS(U) / d) with α = max(ε2, RMS(θ))·ρ.</summary>
    private float Factor(int chunks, long size, AdafactorStep step)
    {
        double weights = 0, updates = 0;
        for (int i = 0; i < chunks; i++) (weights, updates) = (weights + weightSquares[i], updates + updateSquares[i]);
        double alpha = Math.Max(options.Epsilon2, Math.Sqrt(weights / size)) * step.Rho;
        return (float)(alpha / Math.Max(1, Math.Sqrt(updates / size) / options.ClippingThreshold));
    }

    // A row without any gradient yet has 0, and so an infinite scale, which the limit makes finite again.
    private float RowScale(float mean, int matrix) => (float)Math.Sqrt(rowNormal[matrix] / mean);

    private static void CloseColumns(ReadOnlySpan<float> sums, Span<float> variance, Span<float> scale, int rows, float weight)
    {
        for (int j = 0; j < variance.Length; j++)
        {
            double sum = 0;
            for (int at = j; at < sums.Length; at += variance.Length) sum += sums[at];
            variance[j] = Lerp(variance[j], (float)(sum / rows), weight);
            scale[j] = 1 / MathF.Sqrt(variance[j]);
        }
    }

    // As libtorch's lerp: exact at both ends.
    private static float Lerp(float from, float to, float weight) => weight < 0.5f ? from + (weight * (to - from)) : to - ((to - from) * (1 - weight));

    private static double AddSquares(ReadOnlySpan<float> values, Span<float> sums)
    {
        ref float value = ref MemoryMarshal.GetReference(values), sum = ref MemoryMarshal.GetReference(sums);
        Vector<float> total = Vector<float>.Zero;
        int i = 0;
        for (; i <= values.Length - Vector<float>.Count; i += Vector<float>.Count)
        {
            Vector<float> v = Vector.LoadUnsafe(ref value, (nuint)i), square = v * v;
            total += square;
            (Vector.LoadUnsafe(ref sum, (nuint)i) + square).StoreUnsafe(ref sum, (nuint)i);
        }
        double result = Vector.Sum(total);
        for (; i < values.Length; i++)
        {
            float square = values[i] * values[i];
            result += square;
            sums[i] += square;
        }
        return result;
    }

    private static double SumOfSquares(ReadOnlySpan<float> values)
    {
        ref float value = ref MemoryMarshal.GetReference(values);
        Vector<float> total = Vector<float>.Zero;
        int i = 0;
        for (; i <= values.Length - Vector<float>.Count; i += Vector<float>.Count)
        {
            Vector<float> v = Vector.LoadUnsafe(ref value, (nuint)i);
            total += v * v;
        }
        double result = Vector.Sum(total);
        for (; i < values.Length; i++) result += values[i] * values[i];
        return result;
    }

    private double UpdateSquares(ReadOnlySpan<float> gradients, ReadOnlySpan<float> columnScales, float rowScale)
    {
        ref float gradient = ref MemoryMarshal.GetReference(gradients), scale = ref MemoryMarshal.GetReference(columnScales);
        Vector<float> total = Vector<float>.Zero, rows = new(rowScale), limits = new(limit);
        int i = 0;
        for (; i <= gradients.Length - Vector<float>.Count; i += Vector<float>.Count)
        {
            Vector<float> update = Vector.LoadUnsafe(ref gradient, (nuint)i) * Vector.Min(rows * Vector.LoadUnsafe(ref scale, (nuint)i), limits);
            total += update * update;
        }
        double result = Vector.Sum(total);
        for (; i < gradients.Length; i++)
        {
            float update = gradients[i] * MathF.Min(rowScale * columnScales[i], limit);
            result += update * update;
        }
        return result;
    }

    private void Apply(Span<float> weights, ReadOnlySpan<float> gradients, ReadOnlySpan<float> columnScales, float rowScale, float keep, float factor)
    {
        ref float weight = ref MemoryMarshal.GetReference(weights), gradient = ref MemoryMarshal.GetReference(gradients), scale = ref MemoryMarshal.GetReference(columnScales);
        Vector<float> rows = new(rowScale), limits = new(limit), keeps = new(keep), factors = new(factor);
        int i = 0;
        for (; i <= weights.Length - Vector<float>.Count; i += Vector<float>.Count)
        {
            Vector<float> update = Vector.LoadUnsafe(ref gradient, (nuint)i) * Vector.Min(rows * Vector.LoadUnsafe(ref scale, (nuint)i), limits);
            ((Vector.LoadUnsafe(ref weight, (nuint)i) * keeps) - (factors * update)).StoreUnsafe(ref weight, (nuint)i);
        }
        for (; i < weights.Length; i++)
            weights[i] = (weights[i] * keep) - (factor * (gradients[i] * MathF.Min(rowScale * columnScales[i], limit)));
    }

    /// <summary>Runs of `width` numbers in a tensor's memory. The tensor must live on.</summary>
    private readonly struct Rows(torch.Tensor tensor, int width)
    {
        private readonly float* data = (float*)Dispatcher.DataPointer(tensor);

        public Span<float> this[long index] => new(data + (index * width), width);
    }

    /// <summary>A stack of matrices cut into pieces of whole rows.</summary>
    private readonly record struct Chunks(int Count, int Height, int PerMatrix, int Rows, int Threads)
    {
        /// <summary>Calls work(chunk, matrix, first row, end of the rows) for every chunk.</summary>
        public void Run(Action<int, int, int, int> work)
        {
            (int height, int perMatrix, int rows) = (Height, PerMatrix, Rows);
            if (Threads == 1 || Count == 1)
            {
                for (int chunk = 0; chunk < Count; chunk++) One(chunk);
            }
            else Parallel.For(0, Count, new ParallelOptions { MaxDegreeOfParallelism = Threads }, One);

            void One(int chunk) => work(chunk, chunk / perMatrix, chunk % perMatrix * height, Math.Min(rows, ((chunk % perMatrix) + 1) * height));
        }
    }
}
